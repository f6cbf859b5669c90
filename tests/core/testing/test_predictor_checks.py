"""Each check of predictors finds the one that is wrong in its way, and no other check does."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from wrong_components import failures, own_checks

from nnunet_core.contracts.predictor import Slabs


class Windows:
    """A right one, which the wrong ones change: windows side by side, slab by slab."""

    values = "probabilities"

    def load(self, model):
        self.model = model
        self.network = model.network.build(model.configuration.network)
        self.network.load_state_dict(load_file(model.folds[0] / "weights.safetensors"))
        return self.apply

    def apply(self, images):
        shape = (self.model.labels.outputs, *images.shape[1:])
        return Slabs(shape, self.parts(images), self.values)

    def parts(self, images):
        patch = self.model.configuration.patch_size
        patch = (1,) * (3 - len(patch)) + patch
        starts = [range(0, n, p) for n, p in zip(images.shape[1:], patch, strict=True)]
        for z in self.order(starts[0]):
            depth = min(patch[0], images.shape[1] - z)
            slab = np.zeros((self.model.labels.outputs, depth, *images.shape[2:]), np.float32)
            for y, x in itertools.product(*starts[1:]):
                part = images[:, z : z + patch[0], y : y + patch[1], x : x + patch[2]]
                inside = tuple(slice(0, n) for n in part.shape[1:])
                tile = np.zeros((1, *patch), np.float32)
                tile[(slice(None), *inside)] = part
                found = self.tile(tile, len(self.model.configuration.patch_size))
                slab[:, :, y : y + patch[1], x : x + patch[2]] = found[(slice(None), *inside)]
            yield self.finished(slab, patch)

    def order(self, starts):
        return starts

    def finished(self, slab, patch):
        return slab

    @torch.inference_mode()
    def tile(self, tile, dimensions):
        tensor = torch.from_numpy(tile).reshape(1, 1, *tile.shape[-dimensions:])
        flips = [()]
        for axis in self.axes():
            flips += [(*axes, axis + 2) for axes in flips]
        found = [self.back(self.last(self.network(tensor.flip(axes))), axes) for axes in flips]
        return torch.stack(found).mean(0).reshape(-1, *tile.shape[1:]).numpy()

    def axes(self):
        return self.model.mirror_axes

    def back(self, found, axes):
        return found.flip(axes)

    def last(self, logits):
        return logits.sigmoid() if self.model.labels.regions else logits.softmax(1)


class Logits(Windows):
    values = "logits"

    def last(self, logits):
        return logits


class Whole(Windows):
    def apply(self, images):
        return super().apply(images).whole()


class MoreThanOne(Windows):
    def finished(self, slab, patch):
        slab[0] += 0.005
        return slab


class LastColumnMissing(Windows):
    def finished(self, slab, patch):
        if slab.shape[-1] > patch[-1] and slab.shape[-1] % patch[-1]:
            slab[..., -1] = 0.5
        return slab


class OneVoxelFurther(Windows):
    def finished(self, slab, patch):
        return np.roll(slab, 1, -1) if slab.shape[-1] > patch[-1] else slab


class LastSlabFirst(Windows):
    def order(self, starts):
        return reversed(starts)


class Float64Slabs(Windows):
    def finished(self, slab, patch):
        return slab.astype(np.float64)


class NoPadding(Windows):
    def apply(self, images):
        patch = self.model.configuration.patch_size
        if any(n < p for n, p in zip(images.shape[-len(patch) :], patch, strict=True)):
            raise ValueError("the image is smaller than the patch")
        return super().apply(images)


class NotMirroredBack(Windows):
    def back(self, found, axes):
        return found


class AlwaysMirrors(Windows):
    def axes(self):
        return range(len(self.model.configuration.patch_size))


class Drifts(Windows):
    calls = 0

    def apply(self, images):
        self.calls += 1
        return super().apply(images)

    def finished(self, slab, patch):
        change = 1e-5 * self.calls
        slab[0], slab[1] = slab[0] * (1 - change), slab[1] + slab[0] * change
        return slab


class ClipsInPlace(Windows):
    def apply(self, images):
        images.clip(-2, 2, out=images)
        return super().apply(images)


class AllAtOnce(Windows):
    def parts(self, images):
        return iter(list(super().parts(images)))


class MadeAtOnceLater(Windows):
    def parts(self, images):
        yield from list(super().parts(images))


class RefusesLimits(Windows):
    def apply(self, images):
        if self.model.runtime.memory_gb is not None:
            raise MemoryError("too little")
        return super().apply(images)


WRONG = {
    MoreThanOne: "predictor_returns_probabilities",
    LastColumnMissing: "predictor_covers_every_voxel",
    OneVoxelFurther: "predictor_finds_things_where_they_are",
    LastSlabFirst: "predictor_gives_slices_in_order",
    Float64Slabs: "predictor_gives_slices_in_order",
    NoPadding: "predictor_takes_tiny_images",
    NotMirroredBack: "predictor_gives_mirrored_images_mirrored_answers",
    AlwaysMirrors: "predictor_mirrors_no_other_axes",
    Drifts: "predictor_does_the_same_again",
    ClipsInPlace: "predictor_leaves_its_input",
    MadeAtOnceLater: "predictor_needs_no_more_memory_than_it_may",
    AllAtOnce: "predictor_needs_no_more_memory_than_it_may",
    RefusesLimits: "predictor_needs_no_more_memory_than_it_may",
}


@pytest.mark.parametrize("right", [Windows, Logits, Whole])
def test_a_right_predictor_passes_every_check(right):
    assert failures("predictor", right) == {}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_predictor_fails_the_check_that_names_its_fault(wrong):
    assert set(failures("predictor", wrong)) == {WRONG[wrong]}


def test_every_check_of_predictors_has_one_that_fails_it():
    assert own_checks("predictor") == set(WRONG.values())
