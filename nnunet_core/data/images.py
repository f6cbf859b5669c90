"""Images in memory: geometry, header and voxels; and what reads and writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nnunet_core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: The spacing of the slice axis of a 2D image, in mm: no planner resamples across it (spec:
#: dataset, section 2).
SLICE_SPACING_2D = 999.0


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an image lie.

    Attributes:
        shape: Voxels, axis order (z, y, x); 2D images have one slice.
        spacing: mm, axis order (z, y, x).
        origin: mm, SimpleITK order (x, y, z).
        direction: Row-major 3x3 matrix, SimpleITK order.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def differences(self, other: Geometry) -> list[str]:
        """Return the names of the fields in which two images differ, within rtol 1e-5 and atol 1e-8
        (as v1).
        """
        different = [] if self.shape == other.shape else ["shape"]
        for name in ("spacing", "origin", "direction"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if len(mine) != len(theirs) or not np.allclose(mine, theirs):
                different.append(name)
        return different


@dataclass(frozen=True)
class Header:
    """What is known of an image before its voxels are read.

    Attributes:
        shape: Voxels, axis order (z, y, x).
        spacing: mm, axis order (z, y, x).
        channels: Values per voxel.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: int


@dataclass(frozen=True)
class Image:
    """An image with its geometry.

    Attributes:
        array: (C, Z, Y, X) in the type of the file; scalar images have one channel.
        geometry: Of every channel.
    """

    array: np.ndarray
    geometry: Geometry


class ImageFormat(Protocol):
    """Reads and writes one family of image files.

    Everything that is written as an image goes through `write`: predicted label maps, a dataset
    that is made. What a file needs beside voxels and geometry (a colour table, the metadata of
    DICOM SEG) is the affair of its format.
    """

    endings: tuple[str, ...]

    def header(self, path: Path) -> Header:
        """Read size and spacing of one file without its voxels. Raises ImageError."""
        ...

    def read(self, path: Path) -> Image:
        """Read one file to (C, Z, Y, X). Raises ImageError."""
        ...

    def write(self, path: Path, array: np.ndarray, geometry: Geometry) -> None:
        """Write an array (Z, Y, X) atomically, with the geometry of the image that it belongs to.

        Label maps are uint8, or uint16 where the dataset has a label above 255
        (`labels.label_type`).

        Raises:
            ImageError: The format cannot hold the array, or is read only.
            StorageError: The disk is full, or the folder cannot be written.
        """
        ...


def stack_channels(images: Sequence[Image], names: Sequence[Path]) -> Image:
    """Join the channel files of one case to a float32 image (C, Z, Y, X); geometry is that of the
    first file.

    Raises:
        ImageError: The files differ in shape, spacing, origin or direction.
    """
    first = images[0]
    for image, name in zip(images[1:], names[1:], strict=True):
        if different := first.geometry.differences(image.geometry):
            raise ImageError(
                f"{name} and {names[0]} differ in {', '.join(different)}; channels must lie on one "
                "grid: resample them."
            )
    arrays = [image.array.astype(np.float32, copy=False) for image in images]
    return Image(np.concatenate(arrays), first.geometry)


def check_finite(voxels: np.ndarray, path: Path) -> None:
    """Raise ImageError if a voxel of an image is NaN or infinite."""
    if voxels.dtype.kind != "f" or np.isfinite(voxels.sum()):
        return
    if lost := int(np.count_nonzero(~np.isfinite(voxels))):
        raise ImageError(
            f"{path} holds {lost} voxels that are NaN or infinite. Replace them with a number, for "
            "example the background intensity."
        )
