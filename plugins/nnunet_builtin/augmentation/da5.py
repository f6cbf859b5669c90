"""The augmentation of v1's DA5 trainer: quarter turns, transposition, median, rectangles, local brightness and gamma.

Spec: training, section 11. Where v1 chooses between two steps for a batch, this does for each sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage, special

from nnunet_builtin.augmentation.decisions import Draw
from nnunet_builtin.augmentation.draw import (
    AugmentationSettings,
    Channels,
    Degrees,
    Dice,
    NotNegative,
    PositiveFloat,
    Range,
    Share,
)
from nnunet_builtin.augmentation.geometry import spatial_axes
from nnunet_builtin.augmentation.intensity import (
    Step,
    adjust_contrast,
    adjust_gamma,
    adjust_inverted_gamma,
    lower_resolution,
    stretch_contrast,
    take,
)
from nnunet_builtin.augmentation.spatial import move
from nnunet_builtin.augmentation.v2 import augmented, finish

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
        """Return float32 (*patch) from 0, its lowest in the patch, to 1; less where it is wide or far, as in v1."""
        product = np.ones(())
        for voxels, centre, deviation in zip(patch, self.centre, self.deviation, strict=True):
            edges = (np.arange(voxels + 1) - 0.5 - centre) / deviation
            product = np.multiply.outer(product, np.diff(special.ndtr(edges)))
        product -= product.min()
        return (product / max(1e-8, product.max())).astype(np.float32)


@dataclass(frozen=True)
class DA5Draw(Draw):
    """What chance decided for one sample: what `Draw` has, and the steps of DA5.

    Attributes:
        quarter_turns: How many, and the plane (two axes) that they are in; or None.
        order: Permutation of the spatial axes, or None.
        median: Voxels along the axes of the median filter.
        clipped: Whether contrast is clipped to the values before.
        second_inverted_gamma: Exponents; DA5 has this step twice.
        rectangles: Boxes that get their mean.
        gradients: Brightness to add.
        local_gamma: Exponents around a place.
        sharpening: Strength.
    """

    quarter_turns: tuple[int, tuple[int, int]] | None = None
    order: tuple[int, ...] | None = None
    median: Mapping[int, int] = field(default_factory=dict)
    clipped: bool = True
    second_inverted_gamma: Channels = field(default_factory=dict)
    rectangles: Mapping[int, tuple[Box, ...]] = field(default_factory=dict)
    gradients: Mapping[int, Bump] = field(default_factory=dict)
    local_gamma: Mapping[int, Bump] = field(default_factory=dict)
    sharpening: Channels = field(default_factory=dict)


@dataclass(frozen=True)
class DA5(AugmentationSettings):
    """The augmentation of nnU-Net v1's DA5 trainer.

    It has the settings of `v2` with other defaults: factors of brightness and plain gamma are off, and both of its
    gamma steps invert the image, as in v1. Sizes of the local steps follow the patch.

    Args:
        axes_probability: Of quarter turns, and of a permutation; of those axes that share their number of voxels.
        median_probability, median_channel_probability: Median filter of 2 to 7 voxels; one sample in two has this step
            and no blur, the other blur and not this step.
        rectangle_probability: Of 1 to 5 boxes of a tenth to a third of the patch; half of the channels, as below.
        gradient_probability: Of a Gaussian of brightness -5 to -1 or 1 to 5 at its peak.
        local_gamma_probability: Of an exponent of 0.01 to 0.8 or 1.5 to 4 around a place.
        sharpening_probability, sharpening_range: Of subtracting the Laplacian times this strength.
        local_channel_probability: Of each channel in the last four.
    """

    rotation_probability: Share = 0.4
    rotation_axis_probability: Share = 0.5
    elongated_degrees: Degrees = 180.0
    scale_range: Range = (0.7, 1.43)
    independent_scale_probability: Share = 1.0
    generator_scale: PositiveFloat = 0.7
    blur_range: Range = (0.3, 1.5)
    brightness_probability: Share = 0.0
    additive_brightness_probability: Share = 0.1
    additive_brightness_deviation: NotNegative = 0.5
    contrast_probability: Share = 0.2
    contrast_channel_probability: Share = 0.5
    contrast_range: Range = (0.5, 2.0)
    low_resolution_probability: Share = 0.15
    low_resolution_range: Range = (0.25, 1.0)
    gamma_probability: Share = 0.0
    axes_probability: Share = 0.5
    median_probability: Share = 0.2
    median_channel_probability: Share = 0.5
    rectangle_probability: Share = 0.4
    gradient_probability: Share = 0.3
    local_gamma_probability: Share = 0.3
    sharpening_probability: Share = 0.2
    sharpening_range: Range = (0.1, 1.0)
    local_channel_probability: Share = 0.5

    def augment(
        self, batch: dict[str, np.ndarray], configuration: Configuration, seed: int
    ) -> dict[str, np.ndarray]:
        """Return the augmented batch of the network's patch size (contracts.Augmentation); `batch` is not changed.

        Raises:
            UsageError: `mirror_axes` names an axis that the patch does not have, or the network has no channels for the
                previous stage.
        """
        return augmented(batch, configuration, seed, self.draw, apply)

    def draw(
        self, rng: np.random.Generator, configuration: Configuration, channels: int
    ) -> DA5Draw:
        """Draw what happens to one sample of so many image channels."""
        dice, patch = Dice(rng, channels), configuration.patch_size
        drawn = super().draw(rng, configuration, channels)
        median = dice.happens(0.5)
        counts = [patch.count(voxels) for voxels in patch]
        equal = [axis for axis, count in enumerate(counts) if count == max(counts) > 1]
        per_channel = self.local_channel_probability
        return DA5Draw(
            **vars(replace(drawn, blur={}) if median else drawn),
            quarter_turns=self._quarter_turns(dice, equal),
            order=self._order(dice, equal, len(patch)),
            median={c: int(v) for c, v in self._median(dice).items()} if median else {},
            clipped=dice.happens(0.5),
            second_inverted_gamma=dice.each(
                self.inverted_gamma_probability, dice.around_one, self.gamma_range
            ),
            rectangles={
                c: _boxes(rng, patch) for c in self._channels(dice, self.rectangle_probability)
            },
            gradients={
                c: _bump(dice, patch, (-5, -1), (1, 5))
                for c in self._channels(dice, self.gradient_probability)
            },
            local_gamma={
                c: _bump(dice, patch, (0.01, 0.8), (1.5, 4))
                for c in self._channels(dice, self.local_gamma_probability)
            },
            sharpening=dice.each(
                self.sharpening_probability, dice.within, self.sharpening_range, per_channel
            ),
        )

    def _channels(self, dice: Dice, probability: float) -> list[int]:
        return list(dice.each(probability, dice.within, (0.0, 1.0), self.local_channel_probability))

    def _median(self, dice: Dice) -> Channels:
        limits = (2.0, 8.0)
        return dice.each(
            self.median_probability, dice.within, limits, self.median_channel_probability
        )

    def _quarter_turns(self, dice: Dice, equal: list[int]) -> tuple[int, tuple[int, int]] | None:
        if len(equal) < 2 or not dice.happens(self.axes_probability):
            return None
        first, second = np.sort(dice.rng.choice(equal, 2, replace=False))
        return int(dice.rng.integers(4)), (int(first), int(second))

    def _order(self, dice: Dice, equal: list[int], axes: int) -> tuple[int, ...] | None:
        if len(equal) < 2 or not dice.happens(self.axes_probability):
            return None
        places = np.arange(axes)
        places[equal] = dice.rng.permutation(equal)
        return tuple(int(axis) for axis in places)


def apply(
    draw: DA5Draw,
    images: np.ndarray,
    label: np.ndarray,
    configuration: Configuration,
    previous: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Do to one sample what was drawn; arguments and results are those of `augmentation.apply`."""
    maps = label if previous is None else np.concatenate([label, previous])
    images, maps = move(
        draw, images, maps, configuration.patch_size[-spatial_axes(configuration) :]
    )
    images, maps = np.ascontiguousarray(_turned(draw, images)), _turned(draw, maps)
    in_plane = configuration.dummy_2d_augmentation
    take(images, [(draw.median, ndimage.median_filter), (draw.blur, ndimage.gaussian_filter)])
    if draw.noise is not None:
        images += draw.noise
    steps: list[Step] = [
        (draw.brightness, lambda image, factor: image * np.float32(factor)),
        (draw.shift, lambda image, shift: image + np.float32(shift)),
        (draw.contrast, adjust_contrast if draw.clipped else stretch_contrast),
        (draw.zoom, lambda image, zoom: lower_resolution(image, zoom, in_plane)),
        (draw.inverted_gamma, adjust_inverted_gamma),
        (draw.second_inverted_gamma, adjust_inverted_gamma),
        (draw.gamma, adjust_gamma),
    ]
    take(images, steps)
    mirrored = tuple(axis + 1 for axis in draw.mirrored)
    images, maps = np.flip(images, mirrored), np.flip(maps, mirrored)
    local: list[Step] = [
        (draw.rectangles, blank),
        (draw.gradients, add_gradient),
        (draw.local_gamma, local_gamma),
        (draw.sharpening, sharpen),
    ]
    take(images, local)
    images, maps = finish(draw, images, maps, configuration)
    return images, maps.astype(label.dtype, copy=False)


def blank(image: np.ndarray, boxes: tuple[Box, ...]) -> np.ndarray:
    """Return the image with one box after the other filled with its mean."""
    image = image.copy()
    for box in boxes:
        image[box] = image[box].mean()
    return image


def add_gradient(image: np.ndarray, bump: Bump) -> np.ndarray:
    """Return the image with brightness added, 0 at the lowest of a Gaussian and its strength at the highest."""
    weights = bump.weights(image.shape)
    return image + weights * np.float32(bump.strength / max(weights.max(), 1e-8))


def local_gamma(image: np.ndarray, bump: Bump) -> np.ndarray:
    """Return the image between itself and itself to a power, after scaling to [0, 1], by the weights of a Gaussian."""
    low = image.min()
    span = max(image.max() - low, np.float32(1e-8))
    relative = (image - low) / span
    changed = np.power(relative, np.float32(bump.strength))
    return (relative + (changed - relative) * bump.weights(image.shape)) * span + low


def sharpen(image: np.ndarray, strength: float) -> np.ndarray:
    """Return the image minus its Laplacian, 0 outside, times the strength; clipped to the values before."""
    edges = sum(
        ndimage.correlate1d(image, [-1, 2, -1], axis, output=np.float32, mode="constant")
        for axis in range(image.ndim)
    )
    return np.clip(image + edges * np.float32(strength), image.min(), image.max())


def _turned(draw: DA5Draw, array: np.ndarray) -> np.ndarray:
    """Return (C, *patch) after the quarter turns and the permutation of the axes."""
    if draw.quarter_turns is not None:
        times, (first, second) = draw.quarter_turns
        array = np.rot90(array, times, (first + 1, second + 1))
    if draw.order is not None:
        array = array.transpose(0, *(axis + 1 for axis in draw.order))
    return array


def _boxes(rng: np.random.Generator, patch: tuple[int, ...]) -> tuple[Box, ...]:
    """Return 1 to 5 boxes; as in v1 the first voxel of an axis is in none, if there is another place."""
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


def _bump(
    dice: Dice, patch: tuple[int, ...], low: tuple[float, float], high: tuple[float, float]
) -> Bump:
    """Return a Gaussian of a sixth to all of the patch, at most half a patch outside; strength of either range."""
    centre = tuple(dice.within((-0.5, 1.5)) * voxels for voxels in patch)
    deviation = tuple(
        float(np.exp(dice.within((np.log(max(1, n // 6)), np.log(n))))) for n in patch
    )
    return Bump(centre, deviation, dice.within(low if dice.happens(0.5) else high))
