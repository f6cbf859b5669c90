"""Images as if they had been acquired at a lower resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunet_builtin.augmentation.chance import PerChannel, Range, Share
from nnunet_builtin.augmentation.interpolation import products
from nnunet_builtin.preprocessing.matrices import nearest_samples, spline_matrix

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class LowResolution(PerChannel):
    """Down by the nearest sample and up again by cubic splines; with dummy 2D in plane only.

    Args:
        range: Of the resolution, as a fraction of the image's.
    """

    probability: Share = 0.25
    channel_probability: Share = 0.5
    range: Range = (0.5, 1.0)

    def number(self, rng: np.random.Generator) -> float:
        """Return a resolution."""
        return rng.uniform(*self.range)

    def change(
        self, image: torch.Tensor, number: float, configuration: Configuration
    ) -> torch.Tensor:
        """Sample down and up, clipped to the values of the small image."""
        shape = _smaller(image.shape, number, configuration.dummy_2d_augmentation)
        small = image
        for axis, (old, new) in enumerate(zip(image.shape, shape, strict=True)):
            if new != old:
                samples = torch.from_numpy(nearest_samples(old, new)).to(image.device)
                small = small.index_select(axis, samples)
        matrices = [
            None if new == old else spline_matrix(new, old, 3).T
            for old, new in zip(image.shape, shape, strict=True)
        ]
        return products(small[None], matrices)[0].clamp(*small.aminmax())


def _smaller(shape: Sequence[int], zoom: float, in_plane: bool) -> list[int]:
    smaller = [max(1, round(voxels * zoom)) for voxels in shape]
    return [shape[0], *smaller[1:]] if in_plane else smaller
