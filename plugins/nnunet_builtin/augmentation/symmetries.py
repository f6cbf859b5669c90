"""Steps that move voxels without interpolation: mirroring; quarter turns and permutations of axes,
steps of DA5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.augmentation.chance import Axis, Share, happens
from nnunet_core.contracts.augmentation import Sample, Step
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class Mirror(Step):
    """Mirrors along each axis independently.

    Args:
        probability: Per axis.
        axes: Of the patch; None is all of them.
    """

    probability: Share = 0.5
    axes: tuple[Axis, ...] | None = None

    def draw(self, rng: np.random.Generator, sample: Sample) -> tuple[int, ...] | None:
        """Return the axes."""
        axes = self.mirrored_axes(sample.configuration)
        return tuple(axis for axis in axes if happens(rng, self.probability)) or None

    def apply(self, sample: Sample, decision: tuple[int, ...]) -> Sample:
        """Mirror everything."""
        return sample.moved(lambda array: array.flip([axis + 1 for axis in decision]))

    def mirrored_axes(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the axes of the patch that may be mirrored.

        Raises:
            UsageError: `axes` names one that the patch does not have.
        """
        axes = tuple(range(configuration.dimensions))
        chosen = axes if self.axes is None else self.axes
        if set(chosen) - set(axes) or len(set(chosen)) < len(chosen):
            raise UsageError(
                f"augmentation.mirror_axes is {list(chosen)}, but the patch has the axes "
                f"{list(axes)}. Name some of these, each once, or null for all."
            )
        return chosen if self.probability else ()


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
