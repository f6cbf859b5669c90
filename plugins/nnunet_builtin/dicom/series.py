"""DICOM: the slices of one series, or one file, as an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from nnunet_builtin.computing.itk import quiet_itk
from nnunet_builtin.dicom import folders
from nnunet_builtin.dicom.folders import is_dicom
from nnunet_builtin.dicom.pixels import check_content, check_file
from nnunet_builtin.dicom.writing import write_segmentation
from nnunet_core.data.images import Geometry, Header, Image
from nnunet_core.errors import ImageError
from nnunet_core.runtime.memory import check_fits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nnunet_core.data.meaning import SegmentationMeaning

_UID, _MODALITY, _DESCRIPTION = "0020|000e", "0008|0060", "0008|103e"
_CHANNEL_NAMES = {"CT": "CT", "MR": "MRI", "PT": "PET"}
_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
_BYTES_PER_VALUE = 4

#: Part by which gaps between slices may differ, and slices may be shifted within their plane.
_UNEVEN = 0.01


@dataclass(frozen=True)
class SeriesHeader:
    """What the first file of a series says of itself.

    Attributes:
        uid: Series instance UID; empty when the file has none.
        modality: `CT`, `MR`, `SEG`, ...; empty when the file has none.
        description: Series description; empty when the file has none.
    """

    uid: str
    modality: str
    description: str


class DicomSeriesFormat:
    """Reads a folder with the slices of one DICOM series, or one DICOM file (a slice, or several
    frames).
    """

    def __init__(self, endings: tuple[str, ...] = (".dcm",)) -> None:
        self.endings = endings

    def header(self, path: Path) -> Header:
        """Read size and spacing of a series without its voxels. Raises ImageError, as `read`."""
        names = series_files(path)
        reader = _tags(names[0])
        x, y, z = (int(v) for v in reader.GetSize())
        sx, sy, sz = (float(v) for v in reader.GetSpacing())
        if len(names) > 1:
            z, sz = len(names), float(np.linalg.norm(_position(names[1]) - _position(names[0])))
        return Header((z, y, x), (sz, sy, sx), int(reader.GetNumberOfComponents()))

    def read(self, path: Path) -> Image:
        """Read a series to (C, Z, Y, X), slices sorted by position, rescale slope and intercept
        applied.

        Whole numbers become int16 where they fit: the reader always gives more bits once a slope is
        applied.

        Args:
            path: Folder with files of any name, or one file.

        Raises:
            ImageError: No DICOM file, more than one series, slices that are missing, doubled,
                uneven, tilted or of different orientations, or a file that cannot be read.
        """
        names, header = series_files(path), self.header(path)
        check_fits(path, math.prod(header.shape) * header.channels * _BYTES_PER_VALUE)
        try:
            with quiet_itk():
                image = sitk.ReadImage(names[0]) if path.is_file() else sitk.ReadImage(names)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
            raise ImageError(
                f"The DICOM series {path} cannot be read: {reason}. Export it again."
            ) from error
        return _to_image(image, path)

    def find_series(self, folder: Path) -> dict[str, Path]:
        """Return {name: series} of a folder: folders in it with DICOM files, or itself; see
        `folders.find_series`.
        """
        return folders.find_series(folder)

    def channel_name(self, path: Path) -> str:
        """Return the modality of a series as a channel is called, or `unknown`. Raises ImageError,
        as `read`.
        """
        modality = read_header(path).modality
        return _CHANNEL_NAMES.get(modality, modality or "unknown")

    def find_labels(
        self, place: Path, images: Mapping[str, Path], values: Mapping[str, int]
    ) -> tuple[dict[str, Path], dict[str, int], folders.SegmentationLabels] | None:
        """Match series with DICOM SEG files, see `folders.find_segmentations`; None where there are
        no such files.
        """
        segmentations = [place] if place.is_file() else folders.dicom_files(place)
        if not segmentations:
            return None
        series = {name: read_header(path).uid for name, path in images.items()}
        return folders.find_segmentations(series, segmentations, place, values)

    def write_segmentation(
        self, path: Path, array: np.ndarray, geometry: Geometry, meaning: SegmentationMeaning
    ) -> None:
        """Write a label map as DICOM SEG, see `writing.write_segmentation`.

        Raises:
            ImageError: The images are no DICOM, see `read`, or DICOM SEG cannot refer to them.
        """
        try:
            names = series_files(meaning.images[0])
        except ImageError as error:
            raise ImageError(
                f"{path} cannot be written: DICOM SEG refers to the DICOM series that it was found "
                f"in. {error} Or write another format: --ending .nii.gz"
            ) from error
        write_segmentation(path, names, array, geometry, meaning)

    def write(self, path: Path, array: np.ndarray, geometry: Geometry) -> None:
        """Refuse: labels and predictions of DICOM images are written in another format.

        Raises:
            ImageError: Always.
        """
        raise ImageError(
            f"{path} cannot be written ({array.dtype}, shape {geometry.shape}): DICOM series are "
            "read only. Labels and predictions take the ending .nii.gz."
        )


def series_files(path: Path) -> list[str]:
    """Return the files of the one series at `path`, in the order of their positions.

    Raises:
        ImageError: See `DicomSeriesFormat.read`.
    """
    if not path.exists():
        raise ImageError(f"The DICOM series {path} does not exist.")
    if not path.is_dir():
        check_file(path)
        if not is_dicom(path):
            raise ImageError(
                f"{path} is no DICOM file. Give a DICOM file, or a folder with the slices of one "
                "series."
            )
        check_content(str(path), _tags(str(path)))
        return [str(path)]
    for inner in path.iterdir():
        if not inner.is_dir():
            check_file(inner)
    with quiet_itk():
        found = {
            uid: _names(path, uid) for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
        }
    _check_complete(path, {name for names in found.values() for name in names})
    if not found:
        raise ImageError(
            f"{path} holds no DICOM file. A case is a folder with the slices of one series, not "
            "below it."
        )
    if len(found) > 1:
        lines = "; ".join(
            f"{uid} '{_header(n[0]).description}' ({len(n)} files)" for uid, n in found.items()
        )
        raise ImageError(
            f"{path} holds {len(found)} series: {lines}. Split them: one folder per series."
        )
    (names,) = found.values()
    readers = [_tags(name) for name in names]
    for name, reader in zip(names, readers, strict=True):
        check_content(name, reader)
    _check_positions(readers, path)
    return names


def read_header(path: Path) -> SeriesHeader:
    """Read what a series says of itself.

    Raises:
        ImageError: As `series_files`.
    """
    return _header(series_files(path)[0])


def _check_complete(folder: Path, read: set[str]) -> None:
    """Raise ImageError for files that the series reader left out without a word: truncated ones,
    and no images.
    """
    known = {name.replace("\\", "/").rpartition("/")[2] for name in read} | {"DICOMDIR"}
    others = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    left_out = [path for path in others if path.name not in known]
    lost = sorted(
        path.name for path in left_out if is_dicom(path) or path.name.lower().endswith(".dcm")
    )
    if lost:
        raise ImageError(
            f"{folder}: {len(lost)} DICOM files cannot be read as slices: {', '.join(lost[:5])}. "
            "They are damaged or no images: replace or remove them."
        )


def _names(folder: Path, uid: str) -> list[str]:
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))


def _tags(name: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.SetImageIO("GDCMImageIO")
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(
            f"The DICOM file {name} cannot be read. Replace it with an intact copy."
        ) from error
    return reader


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    return str(reader.GetMetaData(tag)).strip(" \0") if reader.HasMetaDataKey(tag) else ""


def _header(name: str) -> SeriesHeader:
    reader = _tags(name)
    return SeriesHeader(_text(reader, _UID), _text(reader, _MODALITY), _text(reader, _DESCRIPTION))


def _check_positions(readers: Sequence[sitk.ImageFileReader], path: Path) -> None:
    """Raise ImageError unless the slices form one regular stack."""
    if len(readers) < 2:
        return
    positions = [_numbers(_text(reader, _POSITION)) for reader in readers]
    axes = [_numbers(_text(reader, _ORIENTATION)) for reader in readers]
    if any(p.size != 3 for p in positions) or any(a.size != 6 for a in axes):
        raise ImageError(
            f"{path}: {len(readers)} slices, some without position or orientation; their order is "
            "unknown. Export the series again, or give every file a case of its own."
        )
    if not all(np.allclose(a, axes[0], atol=1e-4) for a in axes):
        raise ImageError(
            f"{path}: the slices have different orientations. Remove localizers and other "
            "reformats."
        )
    steps = np.diff(positions, axis=0)
    normal = np.cross(axes[0][:3], axes[0][3:])
    gaps = np.abs(steps @ normal)
    usual = float(np.median(gaps))
    if usual == 0 or np.any(np.abs(gaps - usual) > _UNEVEN * usual):
        raise ImageError(
            f"{path}: the distances between its {len(readers)} slices are {_listed(gaps)} mm; they "
            f"must be equal within {_UNEVEN:.0%}. Slices are missing, doubled (several time "
            "points?) or uneven: complete, split or resample them."
        )
    shifts = np.linalg.norm(steps - (steps @ normal)[:, None] * normal, axis=1)
    if np.any(shifts > _UNEVEN * usual):
        raise ImageError(
            f"{path}: each slice is shifted by {_listed(shifts)} mm within its plane (a tilted "
            "gantry), which a grid of voxels cannot express. Resample the series."
        )


def _position(name: str) -> np.ndarray:
    return _numbers(_text(_tags(name), _POSITION))


def _numbers(text: str) -> np.ndarray:
    return np.array([float(part) for part in text.split("\\") if part.strip()])


def _listed(values: np.ndarray) -> str:
    """Return different numbers with their counts: `1 (12 times), 2 (once)`."""
    found, counts = np.unique(np.round(values, 3), return_counts=True)
    shown = [
        f"{v:g} ({n} times)" if n > 1 else f"{v:g} (once)"
        for v, n in zip(found, counts, strict=True)
    ]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")


def _to_image(image: sitk.Image, path: Path) -> Image:
    if image.GetDimension() != 3:
        raise ImageError(
            f"The DICOM series {path} has {image.GetDimension()} dimensions; an image has 3."
        )
    array = sitk.GetArrayFromImage(image)
    array = array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    x, y, z = (int(v) for v in image.GetSize())
    sx, sy, sz = (float(v) for v in image.GetSpacing())
    ox, oy, oz = (float(v) for v in image.GetOrigin())
    direction = tuple(float(v) for v in image.GetDirection())
    return Image(_compact(array), Geometry((z, y, x), (sz, sy, sx), (ox, oy, oz), direction))


def _compact(array: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int16)
    if array.dtype != np.int32 or array.min() < limits.min or array.max() > limits.max:
        return array
    return array.astype(np.int16)
