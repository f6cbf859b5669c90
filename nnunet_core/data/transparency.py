"""The alpha channel of pictures: left out where it says nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nnunet_core.data.images import SLICE_SPACING_2D, Image
from nnunet_core.errors import ImageError, counted

if TYPE_CHECKING:
    from pathlib import Path


def without_alpha(image: Image, channels: int, path: Path) -> Image:
    """Return a picture of grey or colours without the transparency that programs add, where it says
    nothing; other images as they are.

    Args:
        image: Array (C, Z, Y, X).
        channels: Number of channels that are declared.
        path: For messages.

    Raises:
        ImageError: The transparency differs from pixel to pixel.
    """
    planar = image.geometry.spacing[0] == SLICE_SPACING_2D
    if not planar or channels not in (1, 3) or len(image.array) != channels + 1:
        return image
    alpha = image.array[-1]
    if alpha.min() != alpha.max():
        raise ImageError(
            f"The picture {path} has an alpha channel (transparency), from {alpha.min():g} to "
            f"{alpha.max():g}, beside the {counted(channels, 'channel')} that are declared. Save "
            "it without transparency, or declare alpha as a channel of its own."
        )
    return replace(image, array=image.array[:-1])
