"""Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from nnunet_builtin.augmentation.chance import Share, ZeroRange, happens
from nnunet_core.contracts.augmentation import Sample, Step


@dataclass(frozen=True)
class Noise(Step):
    """Gaussian noise of one standard deviation for all channels.

    Args:
        probability: Per sample.
        range: Of the standard deviation.
    """

    probability: Share = 0.1
    range: ZeroRange = (0.0, 0.1)

    def draw(self, rng: np.random.Generator, sample: Sample) -> np.ndarray | None:
        """Return the noise, float32 (C, *patch)."""
        if not happens(rng, self.probability):
            return None
        deviation = np.float32(rng.uniform(*self.range))
        return rng.standard_normal(tuple(sample.images.shape), np.float32) * deviation

    def apply(self, sample: Sample, decision: np.ndarray) -> Sample:
        """Add the noise."""
        noise = torch.from_numpy(decision).to(sample.images.device)
        return replace(sample, images=sample.images + noise)
