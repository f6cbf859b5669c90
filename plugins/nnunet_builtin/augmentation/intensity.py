"""The intensity steps on NumPy arrays: noise, blur, brightness, contrast, low resolution, gamma; and the mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from nnunet_builtin.preprocessing.resampling import resample_images

if TYPE_CHECKING:
    from nnunet_builtin.augmentation.decisions import Draw
    from nnunet_core.data.plans import Configuration

#: A step: the drawn value of each channel, and what it does to one.
Step = tuple[Mapping[int, Any], Callable[[np.ndarray, Any], np.ndarray]]


def change_intensities(draw: Draw, images: np.ndarray, in_plane: bool) -> None:
    """Do the intensity steps of the V2 trainer to float32 (C, *patch) images, in place.

    Additive brightness comes after the factor, as in v1. v1's stronger variants have it before the last gamma step,
    which is the same: every step between moves with the mean.
    """
    if draw.noise is not None:
        images += draw.noise
    take(
        images,
        [
            (draw.blur, ndimage.gaussian_filter),
            (draw.brightness, lambda image, factor: image * np.float32(factor)),
            (draw.shift, lambda image, shift: image + np.float32(shift)),
            (draw.contrast, adjust_contrast),
            (draw.zoom, lambda image, zoom: lower_resolution(image, zoom, in_plane)),
            (draw.inverted_gamma, adjust_inverted_gamma),
            (draw.gamma, adjust_gamma),
        ],
    )


def take(images: np.ndarray, steps: Sequence[Step]) -> None:
    """Take steps one after the other on the channels that have a value, in place."""
    for values, step in steps:
        for channel, value in values.items():
            images[channel] = step(images[channel], value)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the image with its distance to the mean multiplied, clipped to the values that it had."""
    return np.clip(stretch_contrast(image, factor), image.min(), image.max())


def stretch_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the image with its distance to the mean multiplied."""
    mean = image.mean()
    return (image - mean) * np.float32(factor) + mean


def adjust_gamma(image: np.ndarray, exponent: float) -> np.ndarray:
    """Return the image, scaled to [0, 1], to the power of `exponent`, with its mean and standard deviation restored."""
    low = image.min()
    span = image.max() - low + np.float32(1e-7)
    powered = np.power((image - low) / span, np.float32(exponent)) * span + low
    return (powered - powered.mean()) / (
        powered.std() + np.float32(1e-8)
    ) * image.std() + image.mean()


def adjust_inverted_gamma(image: np.ndarray, exponent: float) -> np.ndarray:
    """Do the same to the negated image."""
    return -adjust_gamma(-image, exponent)


def lower_resolution(image: np.ndarray, zoom: float, in_plane: bool = False) -> np.ndarray:
    """Return the image as if it had been acquired at a lower resolution: nearest sample down, cubic spline up.

    Args:
        image: float32 (*spatial), two or three axes.
        zoom: Resolution, as a fraction of the image's.
        in_plane: Keep the resolution of axis 0 of a volume.
    """
    volume = image.reshape(1, *(1,) * (3 - image.ndim), *image.shape)
    shape = volume.shape[1:]
    small = resample_images(
        volume, smaller_shape(shape, zoom, in_plane or image.ndim == 2), None, order=0
    )
    return resample_images(small, shape, None).reshape(image.shape)


def smaller_shape(shape: Sequence[int], zoom: float, in_plane: bool) -> list[int]:
    """Return the shape of an image of lower resolution; `in_plane` keeps axis 0."""
    smaller = [max(1, round(voxels * zoom)) for voxels in shape]
    return [shape[0], *smaller[1:]] if in_plane else smaller


def mask_outside(images: Any, label: Any, configuration: Configuration) -> None:
    """Set channels that were normalised inside the non-zero region to 0 outside it, in place.

    Args:
        images: Array or tensor (C, *patch).
        label: Array or tensor (1, *patch), -1 outside.
        configuration: Which channels.
    """
    for image, normalization in zip(images, configuration.normalization, strict=False):
        if normalization.use_mask:
            image[label[0] < 0] = 0
