"""TIFF files whose spacing stands in a JSON file beside them, as nnU-Net v2 has them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import SLICE_SPACING_2D, Geometry, Header, Image, ending_of
from nnunet_core.data.limits import Millimetres
from nnunet_core.data.metadata import first_problem
from nnunet_core.errors import ImageError, StorageError
from nnunet_core.runtime import files

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

_CHANNEL = re.compile(r"_\d{4}$")
_LARGEST = 1 << 20  # bytes

Spacing = tuple[float, float, float]


class _Sidecar(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    spacing: tuple[Millimetres, Millimetres, Millimetres]  # mm, axis order (z, y, x)


class SidecarTiff(SimpleItkFormat):
    """Reads and writes TIFF files as nnU-Net v2 does: resolutions inside them are not used.

    A volume `CASE_0000.tif` has the spacing (z, y, x) of `CASE.json`, or 1 mm where there is none;
    a picture has 1 mm.
    """

    def __init__(self, endings: tuple[str, ...] = (".tif", ".tiff")) -> None:
        super().__init__(endings)

    def header(self, path: Path) -> Header:
        """Read size and spacing. Raises ImageError."""
        header = super().header(path)
        return replace(header, spacing=_spacing(path, header.spacing[0]))

    def read(self, path: Path) -> Image:
        """Read one file. Raises ImageError."""
        image = super().read(path)
        spacing = _spacing(path, image.geometry.spacing[0])
        return Image(image.array, Geometry(image.geometry.shape, spacing))

    def write(self, path: Path, array: np.ndarray, geometry: Geometry) -> None:
        """Write an array (Z, Y, X), and its spacing beside it if it is a volume. Raises ImageError
        and StorageError.
        """
        super().write(path, array, geometry)
        if geometry.spacing[0] != SLICE_SPACING_2D:
            beside = path.with_name(f"{_stem(path)}.json")
            files.write_json(beside, {"spacing": list(geometry.spacing)})


def _stem(path: Path) -> str:
    return path.name[: -len(ending_of(path.name, (".tif", ".tiff")))]


def _spacing(path: Path, own: float) -> Spacing:
    """Return the spacing of a file in mm, axis order (z, y, x).

    Raises:
        ImageError: The file beside it is no description of a spacing.
    """
    if own == SLICE_SPACING_2D:
        return SLICE_SPACING_2D, 1.0, 1.0
    beside = path.with_name(f"{_CHANNEL.sub('', _stem(path))}.json")
    if not beside.is_file():
        return 1.0, 1.0, 1.0
    try:
        if beside.stat().st_size > _LARGEST:
            raise StorageError(f"it has more than {_LARGEST} bytes")
        return _Sidecar.model_validate(files.read_json(beside)).spacing
    except (ValidationError, StorageError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise ImageError(
            f"{beside}, which says the spacing of {path.name}, cannot be used: {problem}. Expected "
            'is {"spacing": [z, y, x]} in mm.'
        ) from error
