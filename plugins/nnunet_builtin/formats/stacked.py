"""NIfTI files with the channels as a fourth dimension, as in the Medical Segmentation Decathlon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from nnunet_builtin.formats.simpleitk import SimpleItkFormat, examine
from nnunet_core.data.images import Geometry, Header, Image
from nnunet_core.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path


class StackedFormat(SimpleItkFormat):
    """Reads NIfTI files of two or three dimensions, or of four with the channel as the last
    one.
    """

    def header(self, path: Path) -> Header:
        """Read size, spacing and number of channels without the voxels. Raises ImageError."""
        examine(path)
        reader = _reader(path)
        if reader.GetDimension() != 4:
            return super().header(path)
        x, y, z, channels = (int(v) for v in reader.GetSize())
        sx, sy, sz, _ = (float(v) for v in reader.GetSpacing())
        return Header((z, y, x), (sz, sy, sx), channels)

    def read(self, path: Path) -> Image:
        """Read one file to (C, Z, Y, X) in its voxel type.

        Raises:
            ImageError: Unreadable, damaged, with NaN, neither 2D, 3D nor 4D, or several values per
                voxel.
        """
        layout = examine(path)
        if _dimensions(path) != 4:
            return super().read(path)
        if layout is not None:
            layout.read()  # checks what the reader does not
        image = sitk.ReadImage(str(path))
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise ImageError(
                f"The image {path} has 4 dimensions and several values per voxel; it may have one "
                "of these."
            )
        return Image(sitk.GetArrayFromImage(image), _geometry(image))


def _dimensions(path: Path) -> int:
    """Return the number of dimensions of an image file: 2, 3 or 4.

    Raises:
        ImageError: Unreadable, or another number of dimensions.
    """
    found = int(_reader(path).GetDimension())
    if found not in (2, 3, 4):
        raise ImageError(
            f"The image {path} has {found} dimensions; it may have 2, 3, or 4 with the channel as "
            "last one."
        )
    return found


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(
            f"The image {path} cannot be read: it is damaged or no NIfTI file. Replace it."
        ) from error
    return reader


def _geometry(image: sitk.Image) -> Geometry:
    """Return the geometry of one channel of a 4D image: without the last axis."""
    x, y, z = (int(v) for v in image.GetSize()[:3])
    sx, sy, sz = (float(v) for v in image.GetSpacing()[:3])
    ox, oy, oz = (float(v) for v in image.GetOrigin()[:3])
    direction = np.reshape(image.GetDirection(), (4, 4))[:3, :3]
    return Geometry(
        (z, y, x), (sz, sy, sx), (ox, oy, oz), tuple(float(v) for v in direction.ravel())
    )
