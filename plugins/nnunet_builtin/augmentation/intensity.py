"""Brightness, contrast and gamma."""

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


@dataclass(frozen=True)
class Gamma(PerChannel):
    """The image, scaled to [0, 1], to a power, with its mean and standard deviation restored.

    Args:
        range: Of the exponent, below and above 1 equally often.
        inverted: The same for the negated image.
    """

    probability: Share = 0.3
    range: Range = (0.7, 1.5)
    inverted: bool = False

    def number(self, rng: np.random.Generator) -> float:
        """Return an exponent."""
        return around_one(rng, self.range)

    def change(
        self,
        image: torch.Tensor,
        number: float,
        configuration: Configuration,  # noqa: ARG002
    ) -> torch.Tensor:
        """Raise to the power."""
        return -to_the_power(-image, number) if self.inverted else to_the_power(image, number)


def to_the_power(image: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return v1's gamma with retained statistics of float32 (*patch) (spec: training, section
    5).
    """
    low, high = image.aminmax()
    span = high - low + 1e-7
    powered = ((image - low) / span).pow_(exponent).mul_(span).add_(low)
    deviation = powered.std(correction=0) + 1e-8
    factor = image.std(correction=0) / deviation
    return powered.sub_(powered.mean()).mul_(factor).add_(image.mean())
