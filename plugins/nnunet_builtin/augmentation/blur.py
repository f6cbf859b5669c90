"""Gaussian blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from nnunet_builtin.augmentation.chance import PerChannel, Range, Share
from nnunet_builtin.augmentation.interpolation import products

if TYPE_CHECKING:
    import torch

    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class Blur(PerChannel):
    """Gaussian blur of each channel, mirrored at the border, with SciPy's weights.

    Args:
        range: Of the standard deviation, voxels.
    """

    probability: Share = 0.2
    channel_probability: Share = 0.5
    range: Range = (0.5, 1.0)

    def number(self, rng: np.random.Generator) -> float:
        """Return a standard deviation in voxels."""
        return rng.uniform(*self.range)

    def change(
        self,
        image: torch.Tensor,
        number: float,
        configuration: Configuration,  # noqa: ARG002
    ) -> torch.Tensor:
        """Blur, as one product per axis."""
        matrices = {
            n: ndimage.gaussian_filter1d(np.eye(n, dtype=np.float32), number, axis=1)
            for n in set(image.shape)
        }
        return products(image[None], [matrices[n] for n in image.shape])[0]
