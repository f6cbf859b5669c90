"""Gamma: the scaled image to a power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunet_builtin.augmentation.chance import PerChannel, Range, Share, around_one

if TYPE_CHECKING:
    import numpy as np
    import torch

    from nnunet_core.data.plans import Configuration


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
