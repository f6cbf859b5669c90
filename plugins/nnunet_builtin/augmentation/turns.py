"""Quarter turns and permutations of the axes that share their number of voxels: steps of DA5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.augmentation.chance import Share, happens
from nnunet_core.contracts.augmentation import Sample, Step

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class QuarterTurns(Step):
    """Turns by 0 to 3 times 90 degrees in one plane."""

    probability: Share = 0.5

    def draw(self, rng: np.random.Generator, sample: Sample) -> tuple[int, tuple[int, int]] | None:
        """Return how many, and the two axes of the plane."""
        equal = equal_axes(sample.images.shape[1:])
        if len(equal) < 2 or not happens(rng, self.probability):
            return None
        first, second = np.sort(rng.choice(equal, 2, replace=False))
        return int(rng.integers(4)), (int(first), int(second))

    def apply(self, sample: Sample, decision: tuple[int, tuple[int, int]]) -> Sample:
        """Turn everything."""
        times, (first, second) = decision
        return sample.moved(lambda array: array.rot90(times, [first + 1, second + 1]))


@dataclass(frozen=True)
class Transposition(Step):
    """A permutation of the axes."""

    probability: Share = 0.5

    def draw(self, rng: np.random.Generator, sample: Sample) -> tuple[int, ...] | None:
        """Return the new order of the axes."""
        shape = sample.images.shape[1:]
        equal = equal_axes(shape)
        if len(equal) < 2 or not happens(rng, self.probability):
            return None
        places = np.arange(len(shape))
        places[equal] = rng.permutation(equal)
        return tuple(int(axis) for axis in places)

    def apply(self, sample: Sample, decision: tuple[int, ...]) -> Sample:
        """Permute everything."""
        order = [0, *(axis + 1 for axis in decision)]
        return sample.moved(lambda array: array.permute(order))


def equal_axes(shape: Sequence[int]) -> list[int]:
    """Return the axes of the most frequent number of voxels, if more than one axis has it."""
    counts = [list(shape).count(voxels) for voxels in shape]
    return [axis for axis, count in enumerate(counts) if count == max(counts) > 1]
