"""Each check of augmentations finds the one that is wrong in its way, and no other check does."""

import numpy as np
import pytest
import torch
from wrong_components import failures, own_checks


class Mirrored:
    """A right one, which the wrong ones change: crops, mirrors at random, adds noise."""

    def generator_patch_size(self, configuration):
        return tuple(size + 2 for size in configuration.patch_size)

    def mirrored_axes(self, configuration):
        return tuple(range(configuration.dimensions))

    def augment(self, batch, configuration, seed):
        rng = self.generator(seed)
        axes = tuple(2 + axis for axis in range(configuration.dimensions) if rng.random() < 0.5)
        self.window = (..., *(slice(1, 1 + size) for size in configuration.patch_size))
        images = self.moved(batch["images"], axes)
        images = images + rng.normal(0, 0.1, images.shape)
        label = self.label(batch["label"], axes)
        result = {**batch, "label": label}
        if "arrays" in batch:
            result["arrays"] = {name: self.array(a, axes) for name, a in batch["arrays"].items()}
        if "previous" in batch:
            previous = self.previous(result.pop("previous"), axes)
            classes = configuration.network.input_channels - images.shape[1]
            images = np.concatenate([images, *(previous == c for c in range(1, classes + 1))], 1)
        return {**result, "images": images.astype(np.float32)}

    def generator(self, seed):
        return np.random.default_rng(seed)

    def moved(self, array, axes):
        return np.flip(array[self.window], axes)

    def label(self, label, axes):
        return self.moved(label, axes).clip(min=0)

    def array(self, array, axes):
        return self.moved(array, axes)

    def previous(self, previous, axes):
        return self.moved(previous, axes)


class OnTensors(Mirrored):
    """A right one that gets tensors, and whose `augment` is never called."""

    def augment_tensors(self, batch, configuration, seed):
        given = {"images": batch["images"].numpy(), "label": batch["label"].numpy()}
        if "previous" in batch:
            given["previous"] = batch["previous"].numpy()
        if "arrays" in batch:
            given["arrays"] = {name: array.numpy() for name, array in batch["arrays"].items()}
        found = super().augment(given, configuration, seed)
        arrays = {n: torch.from_numpy(a.copy()) for n, a in found.pop("arrays", {}).items()}
        return {**{k: torch.from_numpy(v.copy()) for k, v in found.items()}, "arrays": arrays}

    def augment(self, batch, configuration, seed):
        raise AssertionError("not called")


class FloatLabels(Mirrored):
    def label(self, label, axes):
        return super().label(label, axes).astype(np.float32)


class OneSample(Mirrored):
    def augment(self, batch, configuration, seed):
        found = super().augment(batch, configuration, seed)
        return {**found, "images": found["images"][:1], "label": found["label"][:1]}


class InterpolatedLabels(Mirrored):
    def label(self, label, axes):
        return self.array(label, axes).clip(min=0)

    def array(self, array, axes):
        found = super().array(array, axes).copy()
        found[..., 1:] = np.where(np.diff(found) == 2, 1, found[..., 1:])
        return found


class KeepsMinusOne(Mirrored):
    def label(self, label, axes):
        return self.moved(label, axes)


class MirrorsImagesAlone(Mirrored):
    def label(self, label, axes):
        return super().label(label, ())

    def array(self, array, axes):
        return super().array(array, ())

    def previous(self, previous, axes):
        return super().previous(previous, ())


class ForgetsArrays(Mirrored):
    def array(self, array, axes):
        return super().array(array, ())


class ChangesArrays(Mirrored):
    def array(self, array, axes):
        found = super().array(array, axes)
        return found * 10 if array.dtype == np.float32 else found


class ForgetsPrevious(Mirrored):
    def previous(self, previous, axes):
        return super().previous(previous, ())


class SharedGenerator(Mirrored):
    def generator(self, seed):
        return np.random


class KeepsItsGenerator(Mirrored):
    def generator(self, seed):
        if not hasattr(self, "_generator"):
            self._generator = np.random.default_rng(seed)
        return self._generator


class DividesByTheRange(Mirrored):
    def moved(self, array, axes):
        found = super().moved(array, axes)
        if array.dtype != np.float32 or array.shape[1] != 2:
            return found
        with np.errstate(invalid="ignore"):
            return found / (found.max() - found.min())


class MirrorsThreeAxes(Mirrored):
    def mirrored_axes(self, configuration):
        return (0, 1, 2)


WRONG = {
    FloatLabels: "augmentation_makes_the_patch_of_the_network",
    OneSample: "augmentation_makes_the_patch_of_the_network",
    InterpolatedLabels: "augmentation_makes_no_new_labels",
    KeepsMinusOne: "augmentation_makes_no_new_labels",
    MirrorsImagesAlone: "augmentation_moves_labels_with_images",
    ForgetsArrays: "augmentation_moves_arrays_with_labels",
    ChangesArrays: "augmentation_moves_arrays_with_labels",
    ForgetsPrevious: "augmentation_makes_channels_of_the_previous_stage",
    SharedGenerator: "augmentation_follows_its_seed",
    KeepsItsGenerator: "augmentation_follows_its_seed",
    DividesByTheRange: "augmentation_keeps_intensities_bounded",
    MirrorsThreeAxes: "augmentation_mirrors_axes_that_exist",
}


@pytest.mark.parametrize("right", [Mirrored, OnTensors])
def test_a_right_augmentation_passes_every_check(right):
    assert failures("augmentation", right) == {}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_augmentation_fails_the_check_that_names_its_fault(wrong):
    assert set(failures("augmentation", wrong)) == {WRONG[wrong]}


def test_every_check_of_augmentations_has_one_that_fails_it():
    assert own_checks("augmentation") == set(WRONG.values())
