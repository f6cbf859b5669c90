"""Cases that are unlike the others are planned, prepared, trained on and validated; ignored voxels
teach nothing.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import small_training as small
import torch
from commands import nnunet
from safetensors.torch import load_file

from nnunet_builtin.datasets.reading import read_labels
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_builtin.training.loading import BatchDataset, Iteration
from nnunet_builtin.training.sampling import PatchSampler
from nnunet_core.data.images import Geometry
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.data.splits import Splits

SETTINGS = (
    *("planner.max_batch_size=2", "planner.base_features=4"),
    *("trainer.epochs=1", "trainer.iterations_per_epoch=2", "trainer.validation_iterations=2"),
    "predictor.mirroring=false",
)
ALL = [f"case_{number}" for number in range(6)]
ODD = 5  # the case that both training batches and a validation batch draw


def empty_label(image, label):
    return image, np.zeros_like(label)


def single_slice(image, label):
    return image[8:9], label[8:9]


def single_slice_without_label(image, label):
    return image[8:9], np.zeros_like(label[8:9])


def smaller_than_the_patch(image, label):
    return image[5:8, 6:11, 6:13], label[5:8, 6:11, 6:13]


def constant_image(image, label):
    return np.full_like(image, 7), label


def huge_intensities(image, label):
    return image * 1e30, label


def one_foreground_voxel(image, label):
    found = np.zeros_like(label)
    found[tuple(np.argwhere(label)[0])] = 1
    return image, found


def nothing_but_foreground(image, label):
    return image, np.ones_like(label)


def rewrite(dataset, change, number=ODD):
    """Change a case of the dataset."""
    paths = (
        dataset / "imagesTr" / f"case_{number}_0000.nii.gz",
        dataset / "labelsTr" / f"case_{number}.nii.gz",
    )
    image, label = (SimpleItkFormat().read(path) for path in paths)
    arrays = change(image.array[0], label.array[0])
    geometry = Geometry(arrays[0].shape, image.geometry.spacing)
    for path, array in zip(paths, arrays, strict=True):
        SimpleItkFormat().write(path, array, geometry)


def keep(dataset, count):
    """Remove all cases but the first ones."""
    for path in [*dataset.glob("imagesTr/*"), *dataset.glob("labelsTr/*")]:
        if int(path.name.split("_")[1].split(".")[0]) >= count:
            path.unlink()


def train(dataset, folds="all"):
    """Train in 2D and in 3D by the command line; return the folders of the folds."""
    workspace = dataset.parents[1]
    arguments = ["train", dataset, "--workspace", workspace]
    arguments += ["-c", "2d", "-c", "3d_fullres", "--folds", folds]
    arguments += ["--workers", "0", "--precision", "float32", "--processes", "1"]
    arguments += [part for setting in SETTINGS for part in ("--set", setting)]
    done = nnunet(*arguments)
    assert done.returncode == 0, done.stderr
    found = sorted(workspace.glob("results/*/*/*/fold_*"))
    assert {fold.parent.name for fold in found} == {"2d", "3d_fullres"}
    return found


def check(dataset, fold, cases):
    """The fold is trained and validated: finite weights and losses, one prediction per case, on its
    own grid.
    """
    (line,) = [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([line["train_loss"], line["validation_loss"]]).all()
    assert all(
        torch.isfinite(tensor).all() for tensor in load_file(fold / "weights.safetensors").values()
    )
    results = json.loads((fold / "validation" / "summary.json").read_text())["results"]["all"]
    assert [Path(result["test"]).name for result in results] == [f"{name}.nii.gz" for name in cases]
    for result in results:
        prediction, reference = (
            SimpleItkFormat().read(Path(result[key])) for key in ("test", "reference")
        )
        assert prediction.geometry == reference.geometry
        assert set(np.unique(prediction.array)) <= {0, 1}


def test_the_odd_case_is_trained_on_with_and_without_foreground_forced():
    sampler = PatchSampler(None, ALL, None, batch_size=2)
    batches = BatchDataset(sampler, sampler, None, None, seed=12345)
    assert [batches.names(Iteration(0, index, True)).index(ALL[ODD]) for index in range(2)] == [
        0,
        1,
    ]
    assert ALL[ODD] in batches.names(Iteration(0, 1, False))


CHANGES = [
    *(empty_label, single_slice, single_slice_without_label, smaller_than_the_patch),
    *(constant_image, huge_intensities, one_foreground_voxel, nothing_but_foreground),
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_one_odd_case_among_ordinary_ones(tiny, change):
    rewrite(tiny, change)
    for fold in train(tiny):
        check(tiny, fold, ALL)


@pytest.mark.slow
def test_no_case_has_any_foreground(tiny):
    for number in range(6):
        rewrite(tiny, empty_label, number)
    for fold in train(tiny):
        check(tiny, fold, ALL)


@pytest.mark.slow
def test_a_dataset_of_one_case(tiny):
    keep(tiny, 1)
    for fold in train(tiny):
        check(tiny, fold, ALL[:1])


@pytest.mark.slow
def test_a_dataset_of_five_cases_validates_one_per_fold(tiny):
    keep(tiny, 5)
    found = train(tiny, "0,4")
    splits = Splits.read(tiny.parents[1] / "preprocessed" / tiny.name / "splits.json").folds
    assert [len(split.val) for split in splits] == [1] * 5
    for fold, split in zip(found, (splits[0], splits[4]) * 2, strict=True):
        check(tiny, fold, split.val)


@pytest.mark.slow
def test_an_ignore_label_and_a_case_of_nothing_else(tiny):
    def ignored(image, label):
        label[:, :9], label[0] = 2, 2
        return image, label

    def all_ignored(image, label):
        return image, np.full_like(label, 2)

    document = json.loads((tiny / "dataset.json").read_text())
    document["labels"]["ignore"] = 2
    (tiny / "dataset.json").write_text(json.dumps(document))
    for number in range(6):
        rewrite(tiny, all_ignored if number == ODD else ignored, number)
    for fold in train(tiny):
        check(tiny, fold, ALL)
        last = json.loads((fold / "validation" / "summary.json").read_text())["results"]["all"][ODD]
        assert last["1"]["Dice"] is None


REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
CLASSES = {"background": 0, "edge": 1, "core": 2, "ignore": 3}


def loop_of(folder, labels, size):
    """Return the training of a small network before its first step, in float64."""
    labels = read_labels({"labels": dict(labels), "regions_class_order": [1, 2]}, "test")
    dimensions = len(size)
    axes = (2,) * dimensions
    spec = NetworkSpec(
        dimensions=dimensions,
        input_channels=1,
        output_channels=labels.outputs,
        pool_kernels=((1, *axes[1:]), axes, axes),
        conv_kernels=((3,) * dimensions,) * 4,
        base_features=4,
        max_features=16,
    )
    configuration = small.CONFIGURATION.model_copy(update={"network": spec, "patch_size": size})
    loop = small.make_loop(small.task_without_cases(folder, configuration, labels, seed=0))
    loop.state.network.double()
    return loop


def gradients_of_heads(loop, label):
    """Make one step; return the gradients of all logits, full resolution first."""
    heads, forward = [], loop.forward

    def watched(images):
        heads.extend(forward(images))
        for head in heads:
            head.retain_grad()
        return list(heads)

    loop.forward = watched
    images = torch.randn(
        label.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    value = loop._training_step(
        Iteration(0, 0, True), {"images": images, "label": label, "names": ["drawn"]}, True
    )
    assert np.isfinite(value)
    return [head.grad for head in heads]


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("size", [(16, 16), (8, 16, 16)], ids=["2d", "3d"])
def test_ignored_voxels_have_no_gradient_at_any_resolution(tmp_path, labels, size):
    label = torch.randint(
        0, 4, (2, 1, *size), generator=torch.Generator().manual_seed(0), dtype=torch.int16
    )
    label[:, :, : size[0] // 2][label[:, :, : size[0] // 2] == 0] = 3
    loop = loop_of(tmp_path, labels, size)
    full, half, coarsest = gradients_of_heads(loop, label)
    for gradient, steps in ((full, (1, 1, 1)), (half, (1, 2, 2))):
        axes = [np.arange(step // 2, n, step) for step, n in zip(steps, size, strict=False)]
        ignored = (label.numpy()[np.ix_([0, 1], [0], *axes)] == 3)[:, 0]
        assert 0.2 < ignored.mean() < 0.5
        assert not gradient.abs().sum(1).numpy()[ignored].any()
        assert gradient.abs().sum(1).numpy()[~ignored].all()
    assert coarsest is None


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_a_batch_of_ignored_voxels_changes_weights_by_their_decay_alone(tmp_path, labels):
    loop = loop_of(tmp_path, labels, (16, 16))
    before = {name: tensor.clone() for name, tensor in loop.state.network.state_dict().items()}
    gradients = gradients_of_heads(loop, torch.full((2, 1, 16, 16), 3, dtype=torch.int16))
    assert not any(gradient.any() for gradient in gradients[:2])
    for name, tensor in loop.state.network.state_dict().items():
        decay = (
            0 if name == "heads.0.weight" else 0.01 * 1.99 * 3e-5
        )  # that head is not trained at all, as in v1
        torch.testing.assert_close(tensor, before[name] * (1 - decay), atol=1e-14, rtol=1e-12)
