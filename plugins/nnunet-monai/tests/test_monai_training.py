"""Each variant as a user runs it: planned, trained, stopped and resumed, exported, installed, and
applied to an image of another size.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file

from nnunet_builtin.training.trainer import TrainerV2
from nnunet_cli.main import main

pytestmark = pytest.mark.slow

#: {variant: settings of a network that trains in seconds}.
SMALL = {
    "monai_segresnet": {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    "monai_segresnet_ds": {"init_filters": 8, "blocks_down": [1, 1, 1], "dsdepth": 2},
    "monai_swinunetr": {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    "monai_unetr": {"feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2},
    "monai_dynunet": {},
}
#: {variant: what patches are multiples of}; DynUNet's are those of the plans.
DIVISORS = {
    "monai_segresnet": 4,
    "monai_segresnet_ds": 4,
    "monai_swinunetr": 32,
    "monai_unetr": 16,
    "monai_dynunet": 4,
}
#: Variants whose training is also stopped and resumed.
RESUMED = ("monai_segresnet_ds", "monai_swinunetr")
BRIEF = {
    "planner.base_features": 4,
    "planner.max_batch_size": 1,
    "predictor.mirroring": False,
    "predictor.step_size": 1.0,
    "trainer.epochs": 2,
    "trainer.iterations_per_epoch": 2,
    "trainer.validation_iterations": 1,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A bright cube in noise: five cases of 16 x 20 x 18 voxels, and an image of another size."""
    folder = tmp_path_factory.mktemp("monai") / "Dataset001_Cube"
    random = np.random.default_rng(0)
    for number in range(5):
        label = np.zeros((16, 20, 18), np.uint8)
        z, y, x = random.integers(2, 6, 3)
        label[z : z + 6, y : y + 7, x : x + 7] = 1
        write(folder / "labelsTr" / f"case_{number}.nii.gz", label)
        write(folder / "imagesTr" / f"case_{number}_0000.nii.gz", bright(label, random))
    write(folder / "imagesTs" / "other_0000.nii.gz", bright(np.zeros((9, 41, 50)), random))
    document = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "cube": 1},
        "file_ending": ".nii.gz",
        "numTraining": 5,
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def bright(label, random):
    return (100 + 80 * label + random.normal(0, 10, label.shape)).astype(np.float32)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 1.5))
    sitk.WriteImage(image, str(path))


def nnunet(*arguments, code=0):
    try:
        ended = main([str(argument) for argument in arguments]) or 0
    except SystemExit as end:
        ended = end.code or 0
    assert ended == code


def train(dataset, workspace, variant, configuration="3d_fullres", code=0, **changes):
    """Train a fold; return its folder."""
    network = {f"network.{name}": value for name, value in SMALL[variant].items()}
    only = {"planner.configurations": [configuration]}
    settings = {**BRIEF, **only, **network, **changes}
    pairs = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    options = [part for pair in pairs for part in ("--set", pair)]
    where = ("--workspace", workspace, "--workers", 0, "--device", "cpu", "--seed", 3)
    nnunet("train", dataset, "--variant", variant, "-c", configuration, *where, *options, code=code)
    (record,) = workspace.glob("results/**/run.json")
    return record.parent


@pytest.fixture(scope="module", params=SMALL)
def trained(request, dataset, tmp_path_factory):
    """A variant, its workspace and the folder of its fold."""
    workspace = tmp_path_factory.mktemp(request.param)
    return request.param, workspace, train(dataset, workspace, request.param)


def test_it_trains_on_patches_that_it_can_halve(trained):
    variant, _, fold = trained
    model = json.loads((fold.parent / "model.json").read_text())
    patch = model["configuration"]["patch_size"]
    assert all(size % DIVISORS[variant] == 0 for size in patch)
    record = json.loads((fold / "run.json").read_text())
    assert record["status"] == "finished"
    network = record["components"]["network"]
    assert network["reference"] == variant.replace("monai_", "monai/")
    assert network["distribution"] == "nnunet-monai"
    losses = [json.loads(line)["train_loss"] for line in (fold / "metrics.jsonl").open()]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_a_stopped_training_goes_on_to_the_same_weights(trained, dataset, tmp_path, monkeypatch):
    variant, workspace, whole = trained
    if variant not in RESUMED:
        pytest.skip("two kinds of networks are enough")
    step, steps = TrainerV2.training_step, []

    def stopping(*arguments):
        steps.append(1)
        if len(steps) == 4:
            raise RuntimeError("as planned")
        return step(*arguments)

    # its plans and prepared cases are those of the training that was not stopped
    again = shutil.copytree(workspace, tmp_path / "again", ignore=lambda *_: {"results"})
    with monkeypatch.context() as patched:
        patched.setattr(TrainerV2, "training_step", stopping)
        fold = train(dataset, again, variant, code=1)
    assert not (fold / "weights.safetensors").exists()
    assert train(dataset, again, variant) == fold
    expected, found = (load_file(path / "weights.safetensors") for path in (whole, fold))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        # products of matrices in attention may differ in their last bit from run to run on CPUs,
        # and AdamW's steps of up to 4e-6 with them
        tolerance = 2e-6 if variant == "monai_swinunetr" else 0
        torch.testing.assert_close(tensor, found[name], rtol=0, atol=tolerance)


def test_an_exported_model_predicts_images_of_other_sizes(trained, dataset, tmp_path):
    _, workspace, fold = trained
    archive, elsewhere = tmp_path / "model.zip", tmp_path / "elsewhere"
    nnunet("models", "export", fold.parent, archive, "--folds", "0", "--workspace", workspace)
    nnunet("models", "install", archive, "--workspace", elsewhere)
    (model,) = elsewhere.glob("results/**/model.json")
    images = dataset / "imagesTs"
    labels = {}
    for name, folder in {"here": fold.parent, "there": model.parent}.items():
        nnunet("predict", folder, images, tmp_path / name, "--device", "cpu")
        labels[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name / "other.nii.gz")))
    assert labels["here"].shape == (9, 41, 50)
    np.testing.assert_array_equal(labels["here"], labels["there"])


@pytest.mark.parametrize("variant", ["monai_unetr"])
def test_slices_are_trained_on_too(dataset, tmp_path, variant):
    one = {"trainer.epochs": 1, "trainer.iterations_per_epoch": 1}
    fold = train(dataset, tmp_path, variant, "2d", **one)
    assert Path(fold / "weights.safetensors").is_file()
