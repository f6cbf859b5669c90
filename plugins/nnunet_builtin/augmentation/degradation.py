"""What spoils an image: Gaussian noise, Gaussian blur, a lower resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from nnunet_builtin.augmentation.chance import PerChannel, Range, Share, ZeroRange, happens
from nnunet_builtin.augmentation.interpolation import products
from nnunet_builtin.preprocessing.matrices import nearest_samples, spline_matrix
from nnunet_core.contracts.augmentation import Sample, Step

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration


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
