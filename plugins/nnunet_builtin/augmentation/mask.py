"""Zeros outside the non-zero region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nnunet_core.contracts.augmentation import Sample, Step

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class MaskOutside(Step):
    """Channels that were normalised inside the non-zero region become 0 outside it; nothing here is
    random.
    """

    def draw(self, rng: np.random.Generator, sample: Sample) -> tuple[int, ...] | None:  # noqa: ARG002
        """Return the channels."""
        schemes = enumerate(sample.configuration.normalization)
        return tuple(channel for channel, scheme in schemes if scheme.use_mask) or None

    def apply(self, sample: Sample, decision: tuple[int, ...]) -> Sample:
        """Set them to 0 where the label is negative."""
        images, outside = sample.images.clone(), sample.label[0] < 0
        for channel in decision:
            images[channel].masked_fill_(outside, 0)
        return replace(sample, images=images)
