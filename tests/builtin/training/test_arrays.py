"""Extra arrays of prepared cases: from the store through patches, loader processes and augmentation
to the loss.
"""

import numpy as np
import pytest
import small_training as small
import torch
from safetensors.torch import load_file

from nnunet_builtin.augmentation.v2 import AugmentationV2, AugmentationV2Torch, NoAugmentation
from nnunet_builtin.losses.resolutions import at_resolution
from nnunet_builtin.training.checkpoint import CHECKPOINT
from nnunet_builtin.training.loading import BatchDataset, batches, steps_of
from nnunet_builtin.training.sampling import PatchSampler
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.data.cases import ExtraArray, PreparedCase
from nnunet_core.errors import TrainingError, UsageError
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.models import WEIGHTS

PATCH = small.PATCH


class Recorded:
    """A loss builder that remembers what its loss got, and learns from the arrays."""

    arrays = ("where",)

    def __init__(self):
        self.calls = []

    def build(self, *, batch_dice, ignore_label=None, regions=False):
        def loss(logits, target, arrays):
            self.calls.append((logits.shape, target, arrays))
            return (logits.softmax(1)[:, 1:2] * arrays["where"][:, :1]).mean()

        return loss


class Negating(NoAugmentation):
    """An augmentation that moves arrays: here it changes their signs, to be recognised."""

    def augment(self, batch, configuration, seed):
        moved = {name: -array for name, array in batch["arrays"].items()}
        return super().augment({**batch, "arrays": moved}, configuration, seed)


def add_arrays(store, names=small.NAMES, channels=2, **more):
    """Write the cases again: `where` is the image and twice the image, `marks` the label plus 1."""
    for name in names:
        case = store.open(name)
        images, label = case.images[:], case.label[:]
        where = np.concatenate([images, *[2 * images] * (channels - 1)])
        arrays = {
            "where": ExtraArray(where, "image"),
            "marks": ExtraArray((label[None] + 1).astype(np.uint8), "label"),
            **more,
        }
        locations = case.class_locations
        new = PreparedCase(name, images, label, case.geometry, locations, arrays=arrays)
        store.write(new, "key", PATCH)


def make_task(folder, **changes):
    task = small.make_task(folder, **{"loss": Recorded(), **changes})
    if not task.store.record(small.NAMES[0]).like:
        add_arrays(task.store)
    return task


def sampler_of(task, **changes):
    usual = {"store": task.store, "names": task.training, "configuration": task.configuration}
    return PatchSampler(**{**usual, "batch_size": 3, "foreground": (1, 2), **changes})


@pytest.mark.parametrize("patch", [PATCH, (20, 20, 20), (9, 17)])
def test_patches_of_arrays_lie_where_the_image_does(tmp_path, patch):
    task = make_task(tmp_path / "fold_0")
    configuration = task.configuration
    if len(patch) == 2:
        network = small.isotropic(2, dimensions=2)
        changes = {"patch_size": (8, 8), "network": network}
        configuration = configuration.model_copy(update=changes)
    sampler = sampler_of(task, configuration=configuration)
    batch = sampler.draw(np.random.default_rng(0), patch)
    where, marks = batch["arrays"]["where"], batch["arrays"]["marks"]
    np.testing.assert_array_equal(where[:, :1], batch["images"])
    np.testing.assert_array_equal(where[:, 1:], 2 * batch["images"])
    np.testing.assert_array_equal(marks, batch["label"] + 1)  # 0 outside the volume, as -1 + 1
    assert (where.dtype, marks.dtype) == (np.float32, np.int16)
    assert batch["like"] == {"where": "image", "marks": "label"}
    if 20 in patch:
        assert (marks == 0).any()


def test_arrays_do_not_change_what_is_drawn(tmp_path):
    task = small.make_task(tmp_path / "fold_0")
    before = sampler_of(task).draw(np.random.default_rng(0), PATCH)
    add_arrays(task.store)
    after = sampler_of(task).draw(np.random.default_rng(0), PATCH)
    assert "arrays" not in before
    assert set(after) - set(before) == {"arrays", "like"}
    np.testing.assert_array_equal(before["images"], after["images"])


@pytest.mark.parametrize("kind", ["fewer", "channels"])
def test_cases_with_different_arrays_are_named(tmp_path, kind):
    task = make_task(tmp_path / "fold_0")
    if kind == "channels":
        add_arrays(task.store, small.NAMES[:1], channels=3)
    else:
        add_arrays(task.store, small.NAMES[1:], another=_constant())
    with pytest.raises(TrainingError, match=r"Case case_\d has the extra arrays .*for every case"):
        sampler_of(task, batch_size=20).draw(np.random.default_rng(0), PATCH)


def _constant():
    return ExtraArray(np.ones((1, *small.SHAPE), np.float32), "image")


def first_batches(task, workers, augmentation):
    dataset = BatchDataset(
        sampler_of(task), sampler_of(task), augmentation, task.configuration, seed=3
    )
    return [batch for _, batch in batches(dataset, steps_of(range(1), 1, 1), workers, Silence())]


@pytest.mark.slow
def test_arrays_come_through_loader_processes(tmp_path):
    task = make_task(tmp_path / "fold_0")
    here, there = (first_batches(task, workers, Negating()) for workers in (0, 1))
    for sign, one, other in zip((-1, 1), here, there, strict=True):
        torch.testing.assert_close(one["arrays"], other["arrays"], rtol=0, atol=0)
        assert one["arrays"]["where"].dtype == torch.float32
        assert one["arrays"]["marks"].dtype == torch.int16
        torch.testing.assert_close(sign * one["arrays"]["where"][:, :1], one["images"])


class Forgetful(NoAugmentation):
    def augment(self, batch, configuration, seed):
        result = super().augment(batch, configuration, seed)
        return {key: result[key] for key in ("images", "label")}


class Larger(NoAugmentation):
    """It cuts the image, and leaves the arrays as they were."""

    def generator_patch_size(self, configuration):
        return (10, 10, 10)

    def augment(self, batch, configuration, seed):
        cut = {key: batch[key][:, :, 1:9, 1:9, 1:9] for key in ("images", "label")}
        return super().augment({**batch, **cut}, configuration, seed)


@pytest.mark.parametrize("augmentation", [Forgetful(), Larger()])
def test_an_augmentation_that_does_not_move_arrays_is_refused(tmp_path, augmentation):
    task = make_task(tmp_path / "fold_0")
    with pytest.raises(TrainingError, match=r"cannot move the extra arrays .*\(where, marks\)"):
        first_batches(task, 0, augmentation)


@pytest.mark.parametrize("like", ["image", "label"])
def test_arrays_at_the_resolution_of_a_head(like):
    array = torch.arange(2 * 12 * 8 * 6).reshape(2, 1, 12, 8, 6)
    if like == "image":
        found = at_resolution(array.float(), like, (4, 4, 6))
        blocks = array.float().reshape(2, 1, 4, 3, 4, 2, 6)
        torch.testing.assert_close(found, blocks.mean(dim=(3, 5)))
    else:
        found = at_resolution(array, like, (4, 4, 6))
        assert torch.equal(found, array[:, :, 1::3, 1::2])  # as labels are
        assert found.dtype == array.dtype
    assert at_resolution(array, like, (12, 8, 6)) is array


def test_the_loss_gets_the_arrays_of_each_resolution(tmp_path):
    task = make_task(tmp_path / "fold_0", configuration=_three_resolutions())
    TrainerV2(**{**small.SETTINGS, "epochs": 1}).train(task)
    shapes = {tuple(logits[2:]) for logits, _, _ in task.loss.calls}
    assert shapes == {(8, 8, 8), (4, 4, 4)}  # the third has no weight
    assert len(task.loss.calls) == 2 * (3 + 1)  # training and validation
    for logits, target, arrays in task.loss.calls:
        assert set(arrays) == {"where", "marks"}
        assert arrays["where"].shape == (2, 2, *logits[2:])
        torch.testing.assert_close(arrays["marks"].float(), target.float() + 1)


def _three_resolutions():
    pools = ((2, 2, 2), (2, 2, 2), (1, 1, 1))  # 2 voxels are left: the norm of one is no number
    network = small.isotropic(3, output_channels=3, base_features=4, pool_kernels=pools)
    return small.CONFIGURATION.model_copy(update={"network": network})


@pytest.mark.parametrize("settings", [{}, {"deep_supervision": False}])
def test_a_training_with_arrays_goes_on_exactly(tmp_path, settings):
    class StoppedTrainingError(Exception):
        pass

    def stop(line):
        if line["epoch"] == 2:
            raise StoppedTrainingError

    trainer = TrainerV2(**{**small.SETTINGS, **settings})
    undisturbed = make_task(tmp_path / "a" / "fold_0")
    trainer.train(undisturbed)
    folder = tmp_path / "b" / "fold_0"
    with pytest.raises(StoppedTrainingError):
        trainer.train(make_task(folder, epoch_finished=stop))
    assert (folder / CHECKPOINT).is_file()
    trainer.train(make_task(folder))
    for name, tensor in load_file(undisturbed.folder / WEIGHTS).items():
        assert torch.equal(load_file(folder / WEIGHTS)[name], tensor), name


def test_a_seam_sees_the_arrays_and_may_replace_them(tmp_path):
    class Zeroed(TrainerV2):
        def training_loss(self, training, images, label):
            where = training.arrays["where"]
            assert torch.equal(where[:, :1], images)
            arrays = {**training.arrays, "where": 0 * where}
            return training.compare(training.heads(images), label, arrays)

    task = make_task(tmp_path / "fold_0")
    Zeroed(**{**small.SETTINGS, "epochs": 1, "validation_iterations": 0}).train(task)
    assert all(not arrays["where"].any() for _, _, arrays in task.loss.calls)


@pytest.mark.parametrize("case", [small.NAMES[0], small.NAMES[3]])
def test_a_case_without_the_array_is_said_before_training(tmp_path, case):
    task = make_task(tmp_path / "fold_0")
    stored = task.store.open(case)
    arrays = {"were": ExtraArray(stored.images[:], "image")}
    bare = PreparedCase(case, stored.images[:], stored.label[:], stored.geometry, arrays=arrays)
    task.store.write(bare, "key", PATCH)
    expected = (
        rf"Recorded needs the extra array 'where', .* {case} .*Did you mean 'were'\? It has: were"
    )
    with pytest.raises(UsageError, match=expected):
        TrainerV2(**small.SETTINGS).train(task)
    assert not task.loss.calls


def test_other_losses_do_not_see_arrays(tmp_path):
    plain = small.train(tmp_path / "a" / "fold_0")
    task = make_task(tmp_path / "b" / "fold_0", loss=small.DiceCE(labels="any"))
    TrainerV2(**small.SETTINGS).train(task)
    for name, tensor in load_file(plain / WEIGHTS).items():
        assert torch.equal(load_file(task.folder / WEIGHTS)[name], tensor), name


def test_regions_and_arrays_go_together(tmp_path):
    task = make_task(tmp_path / "fold_0", declared=small.REGIONS)
    TrainerV2(**{**small.SETTINGS, "epochs": 1}).train(task)
    assert {target.dtype for _, target, _ in task.loss.calls} == {torch.bool}


@pytest.mark.parametrize("kind", [AugmentationV2, AugmentationV2Torch])
def test_arrays_move_with_image_and_label(tmp_path, kind):
    """In the loader processes and on the device: rotated, scaled and mirrored, marks lie where the
    labels do.
    """
    augmentation = kind(rotation_probability=1, scaling_probability=1)
    task = make_task(tmp_path / "fold_0", augmentation=augmentation)
    TrainerV2(**{**small.SETTINGS, "epochs": 1, "validation_iterations": 0}).train(task)
    assert task.loss.calls
    for logits, target, arrays in task.loss.calls:
        assert arrays["where"].shape[2:] == logits[2:]
        inside = arrays["marks"] > 0
        assert inside.any()
        same = target[inside] == arrays["marks"][inside] - 1
        assert same.float().mean() > 0.99


def test_cascades_and_arrays_go_together(tmp_path):
    task = make_task(tmp_path / "fold_0", cascade=True)
    TrainerV2(**{**small.SETTINGS, "epochs": 1}).train(task)
    assert task.loss.calls
    assert all(set(arrays) == {"where", "marks"} for _, _, arrays in task.loss.calls)
