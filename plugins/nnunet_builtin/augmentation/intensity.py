"""Brightness and contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunet_builtin.augmentation.chance import NotNegative, PerChannel, Range, Share, around_one

if TYPE_CHECKING:
    import numpy as np
    import torch

    from nnunet_core.contracts.augmentation import Sample
    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class Brightness(PerChannel):
    """The intensity times a factor.

    Args:
        range: Of the factor.
    """

    probability: Share = 0.15
    range: Range = (0.75, 1.25)

    def number(self, rng: np.random.Generator) -> float:
        """Return a factor."""
        return rng.uniform(*self.range)

    def change(
        self,
        image: torch.Tensor,
        number: float,
        configuration: Configuration,  # noqa: ARG002
    ) -> torch.Tensor:
        """Multiply."""
        return image * number


@dataclass(frozen=True)
class AdditiveBrightness(PerChannel):
    """A normally distributed number added to the intensity.

    Args:
        deviation: Standard deviation of the number.
    """

    channel_probability: Share = 0.5
    deviation: NotNegative = 0.1

    def draw(self, rng: np.random.Generator, sample: Sample) -> dict[int, float] | None:
        """Return {channel: number}; draw nothing while the step is off, as it is in v1's
        default.
        """
        return super().draw(rng, sample) if self.probability else None

    def number(self, rng: np.random.Generator) -> float:
        """Return what is added."""
        return rng.normal(0.0, self.deviation)

    def change(
        self,
        image: torch.Tensor,
        number: float,
        configuration: Configuration,  # noqa: ARG002
    ) -> torch.Tensor:
        """Add."""
        return image + number


@dataclass(frozen=True)
class Contrast(PerChannel):
    """The distance to the mean times a factor, below and above 1 equally often.

    Args:
        range: Of the factor.
        clipped: Values stay between the smallest and the largest before.
    """

    probability: Share = 0.15
    range: Range = (0.75, 1.25)
    clipped: bool = True

    def number(self, rng: np.random.Generator) -> float:
        """Return a factor."""
        return around_one(rng, self.range)

    def change(
        self,
        image: torch.Tensor,
        number: float,
        configuration: Configuration,  # noqa: ARG002
    ) -> torch.Tensor:
        """Stretch or squeeze the values about their mean."""
        mean = image.mean()
        changed = (image - mean).mul_(number).add_(mean)
        return changed.clamp_(*image.aminmax()) if self.clipped else changed
