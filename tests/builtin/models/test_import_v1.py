"""Models of nnU-Net v1, imported: they predict what v1 predicted, whatever the trainers are named,
and carry no case name and no path of the machine that trained them.
"""

import json
import pickle
import re
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import commands
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file
from v1_models import write_v1_model

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.residual_names import from_v1_residual
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_core import read_probabilities
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.store.models import Model, ModelDocument

TASK = "Task004_Hippocampus"
VARIANT = "nnUNetTrainerV2__nnUNetPlansv2.1"


def imported(source, workspace, *options):
    done = commands.nnunet("models", "import", source, "--workspace", workspace, *options)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def hippocampus(models, tmp_path_factory):
    """A workspace with the two shared models of v1."""
    workspace = tmp_path_factory.mktemp("imported")
    imported(models / "v1" / "Task004_Hippocampus_v1.zip", workspace)
    return workspace


def compare(models, workspace, model, configuration, output):
    """Predict the inputs, and compare with what v1 predicted."""
    done = commands.nnunet(
        *("predict", model, models / "inputs", output, "--workspace", workspace),
        *("--precision", "float32", "--device", "cpu", "--save-probabilities"),
    )
    assert done.returncode == 0, done.stderr
    assert "No postprocessing" not in done.stderr
    expected = models / "v1" / f"predictions_{configuration}"
    cases = sorted(expected.glob("*.npz"))
    assert len(cases) == 3
    for case in cases:
        with np.load(case) as content:
            theirs = content["softmax"].astype(np.float32)
        ours = read_probabilities(output / f"{case.stem}.b2nd")
        assert np.abs(ours - theirs).mean() <= 2e-3
        labels = [
            sitk.GetArrayFromImage(sitk.ReadImage(folder / f"{case.stem}.nii.gz"))
            for folder in (output, expected)
        ]
        assert (labels[0] == labels[1]).mean() >= 0.999


@pytest.mark.shared
@pytest.mark.parametrize(
    "configuration", ["2d", pytest.param("3d_fullres", marks=pytest.mark.slow)]
)
def test_an_imported_model_predicts_what_v1_predicted(hippocampus, models, tmp_path, configuration):
    compare(models, hippocampus, f"{TASK}/{VARIANT}/{configuration}", configuration, tmp_path)


@pytest.mark.shared
def test_names_of_trainers_decide_nothing(hippocampus, models, tmp_path):
    with zipfile.ZipFile(models / "v1" / "Task004_Hippocampus_v1.zip") as content:
        content.extractall(tmp_path / "v1")
    trained = tmp_path / "v1" / "2d" / TASK
    (trained / VARIANT).rename(trained / "SomebodysTrainer__theirPlans")
    for path in trained.rglob("*.model.pkl"):
        content = path.read_bytes()
        changed = content.replace(b"\x8c\x0fnnUNetTrainerV2", b"\x8c\x0fMyOwnTrainerXYZ")
        assert changed != content
        path.write_bytes(changed)
    done = imported(trained / "SomebodysTrainer__theirPlans", tmp_path / "ws")
    assert "the trainer 'MyOwnTrainerXYZ' is not needed" in done.stderr
    there = Path("results", TASK, "SomebodysTrainer__theirPlans", "2d")
    here = Path("results", TASK, VARIANT, "2d")
    for fold in ("fold_0", "fold_1"):
        theirs = load_file(tmp_path / "ws" / there / fold / "weights.safetensors")
        ours = load_file(hippocampus / here / fold / "weights.safetensors")
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    documents = [
        ModelDocument.read(folder / "model.json").model_dump(exclude={"variant", "origin"})
        for folder in (tmp_path / "ws" / there, hippocampus / here)
    ]
    assert documents[0] == documents[1]


@pytest.mark.shared
def test_no_case_and_no_path_of_the_training_is_kept(hippocampus):
    for path in hippocampus.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not re.search(rb"hippocampus_\d|/data/|npz|nnUNet_cropped", content), path


@pytest.mark.shared
def test_imported_models_are_listed_and_shown(hippocampus):
    listed = commands.nnunet("models", "list", "--workspace", hippocampus).stdout
    assert listed.count("imported") == 2
    assert "folds 0, 1" in listed
    assert "broken" not in listed
    model = f"{TASK}/{VARIANT}/3d_fullres"
    shown = commands.nnunet("models", "show", model, "--workspace", hippocampus).stdout
    assert "made by   nnU-Net v1, trainer nnUNetTrainerV2, plans nnUNetPlansv2.1" in shown
    assert "channels  MRI" in shown


@pytest.mark.shared
def test_an_imported_model_is_replaced_only_when_asked(hippocampus, models):
    source = models / "v1" / "Task004_Hippocampus_v1.zip"
    refused = commands.nnunet("models", "import", source, "--workspace", hippocampus)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    imported(source, hippocampus, "--overwrite", "-c", "2d")
    named = commands.nnunet(
        *("models", "import", source, "--workspace", hippocampus, "-c", "2d"),
        *("--name", "Dataset004_Hippocampus"),
    )
    assert named.returncode == 0
    assert (hippocampus / "results" / "Dataset004_Hippocampus" / VARIANT / "2d").is_dir()
    shutil.rmtree(hippocampus / "results" / "Dataset004_Hippocampus")


def one_model(workspace):
    """Return the only model of a workspace, opened."""
    (path,) = workspace.glob("results/*/*/*/model.json")
    return Model.open(path.parent)


@pytest.mark.parametrize("layout", ["tree", "task", "trainer", "bare"])
def test_every_layout_is_found(tmp_path, layout):
    """The results folder, the folder of a task, of a trainer, and one that says nothing: then what
    the trainer was told counts.
    """
    folder = tmp_path / "v1" / "nnUNet" / "3d_fullres" / "Task007_Pancreas" / VARIANT
    write_v1_model(folder, folds=("fold_0", "fold_3", "all"))
    source = {"tree": folder.parents[2], "task": folder.parent, "trainer": folder}.get(layout)
    if source is None:
        source = tmp_path / "any prefix"
        folder.rename(source)
    imported(source, tmp_path / "ws")
    model = one_model(tmp_path / "ws")
    assert model.document.dataset == "Task007_Pancreas"
    assert model.document.configuration_name == "3d_fullres"
    assert list(model.trained()) == ["0", "3", "all"]
    assert [path.name for path in model.folds()] == ["fold_0", "fold_3"]


def test_fifteen_folds_and_fold_all(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task082_BraTS2020" / VARIANT
    write_v1_model(folder, folds=[*(f"fold_{index}" for index in range(15)), "all"])
    imported(tmp_path / "3d_fullres", tmp_path / "ws")
    assert len(one_model(tmp_path / "ws").folds()) == 15


def test_old_plans_lack_what_weights_and_defaults_have(tmp_path):
    folder = tmp_path / "2d" / "Task001_Old" / VARIANT
    write_v1_model(folder, spec={"dimensions": 2}, old=True)
    imported(folder, tmp_path / "ws")
    configuration = one_model(tmp_path / "ws").document.configuration
    assert configuration.transpose_forward == (0, 1, 2)
    assert configuration.preprocessor == "builtin/planes"
    assert configuration.network.pool_kernels == ((2, 2), (2, 2))
    assert configuration.network.convs_per_stage == 2


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (PlainUNet(norm="batch"), {"norm": "batch"}),
        (PlainUNet(head_bias=True), {"head_bias": True}),
        (PlainUNet(norm="none"), {"norm": "none"}),
    ],
    ids=["batch norm", "head bias", "no norm"],
)
def test_keys_decide_on_the_network(tmp_path, network, settings):
    write_v1_model(tmp_path / "3d_fullres" / "Task001_X" / VARIANT, network=network)
    imported(tmp_path / "3d_fullres", tmp_path / "ws")
    found = one_model(tmp_path / "ws").document.components["network"].settings
    assert {name: found[name] for name in settings} == settings


def test_what_weights_cannot_show_the_trainer_or_the_user_says(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task001_X" / "nnUNetTrainerV2_ReLU__plans"
    write_v1_model(folder, trainer="nnUNetTrainerV2_ReLU")
    imported(folder, tmp_path / "ws")
    assert one_model(tmp_path / "ws").document.components["network"].settings["negative_slope"] == 0
    options = ("--set", "network.negative_slope=0.2", "--mirror-axes", "1,2", "--overwrite")
    imported(folder, tmp_path / "ws", *options)
    document = one_model(tmp_path / "ws").document
    assert document.components["network"].settings["negative_slope"] == 0.2
    assert document.mirror_axes == (1, 2)


def test_a_cascade_goes_beside_its_low_resolution(tmp_path):
    write_v1_model(tmp_path / "v1" / "3d_lowres" / "Task001_X" / VARIANT, stages=2, stage=0)
    cascade = VARIANT.replace("V2__", "V2CascadeFullRes__")
    folder = tmp_path / "v1" / "3d_cascade_fullres" / "Task001_X" / cascade
    write_v1_model(
        folder, stages=2, stage=1, spec={"input_channels": 3}, trainer=cascade.partition("__")[0]
    )
    imported(tmp_path / "v1", tmp_path / "ws")
    results = tmp_path / "ws" / "results" / "Task001_X" / VARIANT
    assert len(Model.open(results / "3d_cascade_fullres").stages()) == 2


REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
    "channel_names": {"0": "FLAIR"},
}


def test_regions_are_asked_for_and_taken(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task001_X" / VARIANT
    write_v1_model(folder, spec={"output_channels": 2}, classes=2)
    asked = commands.nnunet("models", "import", folder, "--workspace", tmp_path / "ws")
    assert asked.returncode == 2
    assert "trained on regions" in asked.stderr
    assert "--dataset-json" in asked.stderr
    assert not list((tmp_path / "ws").rglob("*"))
    (tmp_path / "dataset.json").write_text(json.dumps(REGIONS))
    imported(folder, tmp_path / "ws", "--dataset-json", tmp_path / "dataset.json")
    document = one_model(tmp_path / "ws").document
    assert document.labels.regions == ((1, 2), (2,))
    assert document.channels == ("FLAIR",)


def test_v1s_dataset_json_names_the_labels(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task001_X" / VARIANT
    write_v1_model(folder)
    labels = {"0": "background", "1": "liver", "2": "tumour"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    imported(folder, tmp_path / "ws", "--dataset-json", tmp_path / "dataset.json")
    document = one_model(tmp_path / "ws").document
    assert document.labels.names == {0: "background", 1: "liver", 2: "tumour"}


def test_postprocessing_comes_along_for_all_folds_without_paths(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task001_X" / VARIANT
    write_v1_model(folder, folds=("fold_0", "fold_1"))
    decided = {
        "for_which_classes": [[1, 2], 2],
        "min_valid_object_sizes": "{(1, 2): 300.0, 2: 20.0}",
        "validation_raw": "/home/somebody/validation_raw",
        "num_samples": 20,
    }
    (folder / "postprocessing.json").write_text(json.dumps(decided))
    imported(folder, tmp_path / "ws")
    model = one_model(tmp_path / "ws")
    (path,) = (model.folder / "postprocessing").glob("largest_component-*.json")
    assert "somebody" not in path.read_text()
    state = json.loads(path.read_text())["state"]
    assert state["for_which_classes"] == [[1, 2], 2]
    assert state["min_valid_object_sizes"] == decided["min_valid_object_sizes"]


def test_weights_before_pytorch_1_6_are_read(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task001_X" / VARIANT
    networks = write_v1_model(folder, zipped=False)
    imported(folder, tmp_path / "ws")
    weights = load_file(one_model(tmp_path / "ws").fold_folder("0") / "weights.safetensors")
    expected = networks["fold_0"].state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_an_ensemble_becomes_an_inference_json_that_predict_carries_out(tmp_path):
    torch.manual_seed(0)
    for name, dimensions in (("2d", 2), ("3d_fullres", 3)):
        folder = tmp_path / "v1" / name / "Task001_X" / VARIANT
        write_v1_model(folder, ("fold_0", "fold_1"), spec={"dimensions": dimensions})
    ensemble = f"ensemble_2d__{VARIANT}--3d_fullres__{VARIANT}"
    path = tmp_path / "v1" / "ensembles" / "Task001_X" / ensemble / "postprocessing.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"for_which_classes": [[1, 2]], "validation_raw": "/home/me"}))
    done = imported(tmp_path / "v1", tmp_path / "ws", "--name", "Dataset001_X")
    moved = (tmp_path / "ws").rename(tmp_path / "moved")
    place = Path("results/Dataset001_X/ensembles/ensemble_2d--3d_fullres/inference.json")
    assert f"nnunet predict {tmp_path / 'ws' / place} IMAGES OUTPUT" in done.stderr
    document = json.loads((moved / place).read_text())
    assert "/home/me" not in json.dumps(document)
    state = {"for_which_classes": [[1, 2]], "min_valid_object_sizes": None}
    assert document["postprocessing"]["state"] == state
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.normal(30, 12, (10, 12, 11)).astype(np.float32))
    sitk.WriteImage(image, str(tmp_path / "a_0000.nii.gz"))
    quick = ("--device", "cpu", "--no-mirroring", "--save-probabilities", "--entropy")
    out = tmp_path / "out"
    run = ("predict", moved / place, tmp_path / "a_0000.nii.gz", out, *quick)
    done = commands.nnunet(*run, "--no-postprocessing")
    assert done.returncode == 0, done.stderr
    assert read_probabilities(out / "a.b2nd").shape == (3, 10, 12, 11)
    assert sorted(p.name for p in out.iterdir()) == [
        *("a.b2nd", "a.nii.gz", "entropy", "predictions.json")
    ]
    raw = sitk.GetArrayFromImage(sitk.ReadImage(out / "a.nii.gz"))
    assert commands.nnunet(*run, "--overwrite").returncode == 0
    cleaned = sitk.GetArrayFromImage(sitk.ReadImage(out / "a.nii.gz"))
    objects = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(raw)))
    assert json.loads((out / "predictions.json").read_text())["postprocess"]
    assert (cleaned > 0).sum() == np.bincount(objects[objects > 0]).max()


def test_the_best_weights_are_taken_when_asked_for(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task001_X" / VARIANT
    write_v1_model(folder, checkpoint="model_best.model")
    refused = commands.nnunet("models", "import", folder, "--workspace", tmp_path / "ws")
    assert refused.returncode == 2
    assert "--checkpoint best" in refused.stderr
    imported(folder, tmp_path / "ws", "--checkpoint", "best")


def v1_residual_names(network):
    """Return a state dict under the names of v1's FabiansUNet, written by another hand than the
    reading: stage by stage.
    """
    state, depth = {}, len(network.upsampling)
    stem, *first = network.encoder[0]
    stages = [first, *network.encoder[1:]]

    def add(name, module):
        for key, tensor in module.state_dict().items():
            state[f"{name}.{key}"] = tensor

    add("encoder.initial_conv", stem.conv)
    add("encoder.initial_norm", stem.norm)
    for s, blocks in enumerate(stages):
        for b, block in enumerate(blocks):
            place = f"encoder.stages.{s}.convs.{b}"
            add(f"{place}.conv1", block.first.conv)
            add(f"{place}.norm1", block.first.norm)
            add(f"{place}.conv2", block.second)
            add(f"{place}.norm2", block.norm)
            if not isinstance(block.skip, torch.nn.Identity):
                add(f"{place}.downsample_skip.0", block.skip)
                add(f"{place}.downsample_skip.1", block.skip_norm)
    for u in range(depth):
        add(f"decoder.tus.{u}", network.upsampling[u])
        layers = network.decoder[u][0]
        for place in ("", "all."):
            conv, norm = ("conv", "norm") if not place else ("all.0", "all.2")
            add(f"decoder.stages.{u}.convs.0.{conv}", layers.conv)
            add(f"decoder.stages.{u}.convs.0.{norm}", layers.norm)
        last = u == depth - 1
        head = "decoder.segmentation_output" if last else f"decoder.deep_supervision_outputs.{u}"
        state[f"{head}.weight"] = network.heads[u].weight.detach()
    return state


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_v1s_residual_networks_come_along(tmp_path, norm):
    torch.manual_seed(0)
    builder = ResidualUNet(blocks=(1, 2, 2), conv_bias=True, norm=norm)
    folder = tmp_path / "3d_fullres" / "Task001_X" / VARIANT
    networks = write_v1_model(
        folder, network=builder, names=lambda n: OrderedDict(v1_residual_names(n))
    )
    imported(folder, tmp_path / "ws")
    model = one_model(tmp_path / "ws")
    found = model.document.components["network"]
    assert found.reference == "builtin/residual_unet"
    assert found.settings["blocks"] == [1, 2, 2]
    weights = load_file(model.fold_folder("0") / "weights.safetensors")
    expected = networks["fold_0"].state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[n], expected[n]) or n.startswith("heads") for n in expected)
    assert not any(weights[n].any() for n in weights if re.match(r"heads.*bias", n))


def test_names_of_another_residual_network_are_refused():
    spec = NetworkSpec(
        dimensions=2,
        input_channels=1,
        output_channels=2,
        pool_kernels=((2, 2),),
        conv_kernels=((3, 3), (3, 3)),
        base_features=2,
    )
    state = v1_residual_names(ResidualUNet(blocks=(1, 1)).build(spec))
    with pytest.raises(Exception, match=r"encoder\.attention"):
        from_v1_residual({**state, "encoder.attention.weight": torch.zeros(1)})


def test_differing_plans_are_told(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task001_X" / VARIANT
    write_v1_model(folder)
    plans = pickle.loads((folder / "plans.pkl").read_bytes())
    plans["plans_per_stage"][0]["patch_size"] = np.array([16, 16, 16])
    (folder / "plans.pkl").write_bytes(pickle.dumps(plans))
    assert "plans.pkl differs" in imported(folder, tmp_path / "ws").stderr
    assert one_model(tmp_path / "ws").document.configuration.patch_size == (8, 8, 8)
