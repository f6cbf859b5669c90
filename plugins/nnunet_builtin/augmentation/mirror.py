"""Mirroring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunet_builtin.augmentation.chance import Axis, Share, happens
from nnunet_core.contracts.augmentation import Sample, Step
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

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
