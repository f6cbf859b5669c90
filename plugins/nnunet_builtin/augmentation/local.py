"""Steps of DA5 that change a part of the image: rectangles, brightness and gamma around a place,
sharpening, median.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage, special

from nnunet_builtin.augmentation.chance import PerChannel, Range, Share, channels, happens
from nnunet_builtin.augmentation.degradation import Blur
from nnunet_core.contracts.augmentation import Sample, Step

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Bump:
    """A Gaussian somewhere in or near the patch.

    Attributes:
        centre: Voxels, from the patch's first edge.
        deviation: Standard deviation along each axis, voxels.
        strength: What it does at its peak: brightness added, or exponent.
    """

    centre: tuple[float, ...]
    deviation: tuple[float, ...]
    strength: float

    def weights(self, patch: tuple[int, ...]) -> np.ndarray:
        """Return float32 (*patch) from 0, its lowest in the patch, to 1; less where it is wide or
        far, as in v1.
        """
        product = np.ones(())
        for voxels, centre, deviation in zip(patch, self.centre, self.deviation, strict=True):
            edges = (np.arange(voxels + 1) - 0.5 - centre) / deviation
            product = np.multiply.outer(product, np.diff(special.ndtr(edges)))
        product -= product.min()
        return (product / max(1e-8, product.max())).astype(np.float32)


@dataclass(frozen=True)
class Rectangles(Step):
    """1 to 5 boxes of a tenth to a third of the patch, filled with their mean."""

    probability: Share = 0.4
    channel_probability: Share = 0.5

    def draw(self, rng: np.random.Generator, sample: Sample) -> dict[int, tuple[Box, ...]] | None:
        """Return {channel: boxes}."""
        patch = tuple(sample.images.shape[1:])
        chosen = channels(rng, self.probability, self.channel_probability, len(sample.images))
        return {channel: _boxes(rng, patch) for channel in chosen} or None

    def apply(self, sample: Sample, decision: Mapping[int, tuple[Box, ...]]) -> Sample:
        """Fill one box after the other."""
        images = sample.images.clone()
        for channel, boxes in decision.items():
            for box in boxes:
                images[channel][box] = images[channel][box].mean()
        return replace(sample, images=images)


@dataclass(frozen=True)
class LocalBrightness(Step):
    """A Gaussian of brightness -5 to -1 or 1 to 5 at its peak, added."""

    probability: Share = 0.3
    channel_probability: Share = 0.5

    def draw(self, rng: np.random.Generator, sample: Sample) -> dict[int, Bump] | None:
        """Return {channel: Gaussian}."""
        return _bumps(rng, self, sample, (-5, -1), (1, 5))

    def apply(self, sample: Sample, decision: Mapping[int, Bump]) -> Sample:
        """Add: 0 at the lowest of the Gaussian, and its strength at the highest."""
        images = sample.images.clone()
        for channel, bump in decision.items():
            weights = bump.weights(tuple(images.shape[1:]))
            added = weights * np.float32(bump.strength / max(weights.max(), 1e-8))
            images[channel] += torch.from_numpy(added).to(images.device)
        return replace(sample, images=images)


@dataclass(frozen=True)
class LocalGamma(Step):
    """An exponent of 0.01 to 0.8 or 1.5 to 4 around a place."""

    probability: Share = 0.3
    channel_probability: Share = 0.5

    def draw(self, rng: np.random.Generator, sample: Sample) -> dict[int, Bump] | None:
        """Return {channel: Gaussian}."""
        return _bumps(rng, self, sample, (0.01, 0.8), (1.5, 4))

    def apply(self, sample: Sample, decision: Mapping[int, Bump]) -> Sample:
        """Go from the image to the image to a power, after scaling to [0, 1], by the weights of the
        Gaussian.
        """
        images = sample.images.clone()
        for channel, bump in decision.items():
            image = images[channel]
            low, high = image.aminmax()
            span = (high - low).clamp_(min=1e-8)
            relative = (image - low) / span
            weights = torch.from_numpy(bump.weights(tuple(image.shape))).to(image.device)
            changed = relative + (relative**bump.strength - relative) * weights
            images[channel] = changed * span + low
        return replace(sample, images=images)


@dataclass(frozen=True)
class Sharpening(PerChannel):
    """The image minus its Laplacian, 0 outside, times a strength; clipped to the values before.

    Args:
        range: Of the strength.
    """

    probability: Share = 0.2
    channel_probability: Share = 0.5
    range: Range = (0.1, 1.0)

    def number(self, rng: np.random.Generator) -> float:
        """Return a strength."""
        return rng.uniform(*self.range)

    def change(
        self,
        image: torch.Tensor,
        number: float,
        configuration: Configuration,  # noqa: ARG002
    ) -> torch.Tensor:
        """Sharpen."""
        edges = 2 * image.ndim * image
        for axis, n in enumerate(image.shape):
            edges.narrow(axis, 1, n - 1).sub_(image.narrow(axis, 0, n - 1))
            edges.narrow(axis, 0, n - 1).sub_(image.narrow(axis, 1, n - 1))
        return (image + edges * number).clamp_(*image.aminmax())


@dataclass(frozen=True)
class MedianOrBlur(Step):
    """For one sample in two a median filter of 2 to 7 voxels, for the other blur; each with its own
    probabilities.

    Args:
        median_probability, median_channel_probability: Of the filter.
        blur_probability, blur_channel_probability, blur_range: As in `Blur`.
    """

    median_probability: Share = 0.2
    median_channel_probability: Share = 0.5
    blur_probability: Share = 0.2
    blur_channel_probability: Share = 0.5
    blur_range: Range = (0.3, 1.5)

    def draw(self, rng: np.random.Generator, sample: Sample) -> dict[str, Any] | None:
        """Return {`median` or `blur`: {channel: voxels, or standard deviation}}."""
        if not happens(rng, 0.5):
            decision = self._blur().draw(rng, sample)
            return {"blur": decision} if decision else None
        share, count = self.median_channel_probability, len(sample.images)
        chosen = channels(rng, self.median_probability, share, count)
        return (
            {"median": {channel: int(rng.integers(2, 8)) for channel in chosen}} if chosen else None
        )

    def apply(self, sample: Sample, decision: Mapping[str, Any]) -> Sample:
        """Filter; the median is computed on the CPU."""
        if "blur" in decision:
            return self._blur().apply(sample, decision["blur"])
        images = sample.images.clone()
        for channel, voxels in decision["median"].items():
            filtered = ndimage.median_filter(images[channel].cpu().numpy(), voxels)
            images[channel] = torch.from_numpy(filtered).to(images.device)
        return replace(sample, images=images)

    def _blur(self) -> Blur:
        return Blur(self.blur_probability, self.blur_channel_probability, self.blur_range)


def _boxes(rng: np.random.Generator, patch: tuple[int, ...]) -> tuple[Box, ...]:
    """Return 1 to 5 boxes; as in v1 the first voxel of an axis is in none, if there is another
    place.
    """
    boxes = []
    for _ in range(rng.integers(1, 6)):
        sizes = [int(rng.integers(max(1, n // 10), max(1, n // 10, n // 3) + 1)) for n in patch]
        starts = [
            int(rng.integers(min(1, n - size), n - size + 1))
            for n, size in zip(patch, sizes, strict=True)
        ]
        boxes.append(
            tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        )
    return tuple(boxes)


def _bumps(
    rng: np.random.Generator,
    step: LocalBrightness | LocalGamma,
    sample: Sample,
    low: tuple[float, float],
    high: tuple[float, float],
) -> dict[int, Bump] | None:
    """Return {channel: a Gaussian of a sixth to all of the patch, at most half a patch outside;
    strength of either range}.
    """
    patch = tuple(sample.images.shape[1:])
    bumps = {}
    for channel in channels(rng, step.probability, step.channel_probability, len(sample.images)):
        centre = tuple(rng.uniform(-0.5, 1.5) * voxels for voxels in patch)
        widths = [rng.uniform(np.log(max(1, n // 6)), np.log(n)) for n in patch]
        strength = rng.uniform(*(low if happens(rng, 0.5) else high))
        bumps[channel] = Bump(centre, tuple(float(np.exp(width)) for width in widths), strength)
    return bumps or None
