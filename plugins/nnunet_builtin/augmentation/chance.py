"""Questions that drawing asks, types of the settings that answer them, and the step that draws a
number per channel.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import AfterValidator, Field, PositiveFloat

from nnunet_core.contracts.augmentation import Sample, Step

if TYPE_CHECKING:
    import numpy as np

    from nnunet_core.data.plans import Configuration


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"the first of {values} must not be larger than the second")
    return values


NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Axis = Annotated[int, Field(ge=0, le=2)]
Range = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)]
ZeroRange = Annotated[tuple[NotNegative, PositiveFloat], AfterValidator(_ascending)]
#: How much larger patches are cut than they are used: divided by it.
Scale = Annotated[float, Field(ge=0.1, le=10)]
Radius = Annotated[float, Field(gt=0, le=60)]
RadiusRange = Annotated[tuple[Radius, Radius], AfterValidator(_ascending)]


def happens(rng: np.random.Generator, probability: float) -> bool:
    """Return True with this probability."""
    return rng.random() < probability


def around_one(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Return a number of the range, below and above 1 equally often."""
    low, high = limits
    if low < 1 < high:
        low, high = (low, 1) if happens(rng, 0.5) else (1, high)
    return rng.uniform(low, high)


def channels(
    rng: np.random.Generator, probability: float, channel_probability: float, count: int
) -> list[int]:
    """Return to which of so many channels something happens; to none, if it does not happen to the
    sample.
    """
    if not happens(rng, probability):
        return []
    return [channel for channel in range(count) if happens(rng, channel_probability)]


@dataclass(frozen=True)
class PerChannel(Step):
    """A step that draws a number for each channel and changes one channel at a time.

    Args:
        probability: Per sample.
        channel_probability: Per channel of such a sample.
    """

    probability: Share = 0.0
    channel_probability: Share = 1.0

    def draw(self, rng: np.random.Generator, sample: Sample) -> dict[int, float] | None:
        """Return {channel: number}."""
        if not happens(rng, self.probability):
            return None
        numbers = {}
        for channel in range(len(sample.images)):
            if happens(rng, self.channel_probability):
                numbers[channel] = self.number(rng)
        return numbers or None

    def apply(self, sample: Sample, decision: dict[int, float]) -> Sample:
        """Return the sample with the drawn channels changed."""
        images = [
            self.change(image, decision[channel], sample.configuration)
            if channel in decision
            else image
            for channel, image in enumerate(sample.images)
        ]
        return replace(sample, images=torch.stack(images))

    @abstractmethod
    def number(self, rng: np.random.Generator) -> float:
        """Return the number for a channel."""

    @abstractmethod
    def change(
        self, image: torch.Tensor, number: float, configuration: Configuration
    ) -> torch.Tensor:
        """Return a changed channel; float32 (*patch)."""
