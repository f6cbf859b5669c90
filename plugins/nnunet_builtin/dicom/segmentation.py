"""DICOM SEG: the segments of a file as label values on the grid of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_core.data.labels import label_type
from nnunet_core.errors import ImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nnunet_core.data.images import Geometry

#: Voxels by which a frame may lie beside the image's grid.
_TOLERANCE = 0.05


def referenced_series(path: Path) -> tuple[str, ...]:
    """Return the UIDs of the series that a DICOM SEG file was drawn on; empty when it names none.

    Raises:
        UsageError: highdicom is not installed.
        ImageError: The file is no readable DICOM SEG.
    """
    return tuple(
        str(item.SeriesInstanceUID) for item in _open(path).get("ReferencedSeriesSequence", ())
    )


def segment_names(path: Path) -> dict[int, str]:
    """Return {segment number: name}, in the order of the numbers.

    The name is the segment's label, else its description, else the meaning of its property type.
    Segments of one name are parts of one structure.

    Raises:
        UsageError: highdicom is not installed.
        ImageError: The file is no readable DICOM SEG.
    """
    return _names(_open(path))


def read_segmentation(
    path: Path, geometry: Geometry, values: Mapping[int, int] | None = None
) -> np.ndarray:
    """Read a DICOM SEG file to label values (Z, Y, X) on the grid of its image; uint8, or uint16
    above 255.

    Frames are placed by their position and orientation: flipped, cropped and sparse files need no
    resampling. A fraction of at least 0.5 belongs to its segment.

    Args:
        path: The file; binary, fractional or a label map.
        geometry: Of the image.
        values: {segment number: label value}; default: the number is the value.

    Raises:
        UsageError: highdicom is not installed.
        ImageError: No readable DICOM SEG, frames beside the image's grid, or voxels of two segments
            of different values.
    """
    source = _open(path)
    names = _names(source)
    values = {number: number for number in names} if values is None else values
    label = np.zeros(geometry.shape, label_type(max(values.values(), default=0)))
    owner = np.zeros(geometry.shape, np.uint16)
    for number, affine, mask in _frames(source, path):
        where = _voxels(mask, affine, geometry, path)
        taken = owner[where][(label[where] != 0) & (label[where] != values[number])]
        if taken.size:
            raise ImageError(
                f"{path}: the segments {int(taken[0])} '{names[int(taken[0])]}' and {number} "
                f"'{names[number]}' overlap; a label map holds one value per voxel. Remove the "
                "overlap, or export disjoint segments."
            )
        label[where], owner[where] = values[number], number
    return label


def _open(path: Path) -> Any:
    try:
        import highdicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise UsageError(
            f"{path} is DICOM SEG, which needs highdicom. Run: pip install nnunet-core[dicom]"
        ) from error
    try:
        return highdicom.seg.segread(path)
    except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ImageError(
            f"{path} cannot be read as DICOM SEG: {error} Give a DICOM segmentation object."
        ) from error


def _names(source: Any) -> dict[int, str]:
    names = {}
    for item in source.SegmentSequence:
        types = item.get("SegmentedPropertyTypeCodeSequence", ())
        meaning = str(types[0].get("CodeMeaning", "")) if types else ""
        name = (
            str(item.get("SegmentLabel", "")) or str(item.get("SegmentDescription", "")) or meaning
        )
        if int(item.SegmentNumber):
            names[int(item.SegmentNumber)] = name.strip() or f"segment {item.SegmentNumber}"
    return dict(sorted(names.items()))


def _frames(source: Any, path: Path) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (segment number, affine, mask) of every frame; a frame of a label map once per segment
    in it.
    """
    kind = str(source.SegmentationType)
    limit = float(source.get("MaximumFractionalValue", 1)) / 2
    shared = source.get("SharedFunctionalGroupsSequence", [{}])[0]
    for index, group in enumerate(source.PerFrameFunctionalGroupsSequence):
        pixels = source.get_stored_frame(index + 1)
        affine = _affine(group, shared, path)
        if kind == "LABELMAP":
            for number in np.unique(pixels[pixels > 0]):
                yield int(number), affine, pixels == number
        else:
            item = _group("SegmentIdentificationSequence", group, shared, path)
            threshold = pixels > 0 if kind == "BINARY" else pixels >= limit
            yield int(item.ReferencedSegmentNumber), affine, threshold


def _group(name: str, frame: Any, shared: Any, path: Path) -> Any:
    for place in (frame, shared):
        if place.get(name):
            return place.get(name)[0]
    raise ImageError(
        f"{path}: a frame has no {name}, so that its place is unknown. Export the segmentation "
        "again."
    )


def _affine(frame: Any, shared: Any, path: Path) -> np.ndarray:
    """Return the (3, 3) matrix with columns: mm per row, mm per column, position of the first
    pixel; LPS.
    """
    measures = _group("PixelMeasuresSequence", frame, shared, path)
    axes = np.array(
        _group("PlaneOrientationSequence", frame, shared, path).ImageOrientationPatient, float
    )
    position = np.array(
        _group("PlanePositionSequence", frame, shared, path).ImagePositionPatient, float
    )
    down, right = (float(v) for v in measures.PixelSpacing)
    return np.stack([axes[3:] * down, axes[:3] * right, position], axis=1)


def _voxels(
    mask: np.ndarray, affine: np.ndarray, geometry: Geometry, path: Path
) -> tuple[np.ndarray, ...]:
    """Return the voxels (z, y, x) of the image that the pixels of a frame's mask are."""
    matrix = np.reshape(geometry.direction, (3, 3)) * np.array(geometry.spacing[::-1])
    steps = np.linalg.solve(matrix, affine[:, :2])
    start = np.linalg.solve(matrix, affine[:, 2] - np.array(geometry.origin))
    rows, columns = mask.shape
    corners = start[:, None] + steps @ np.array(
        [[0, rows - 1, 0, rows - 1], [0, 0, columns - 1, columns - 1]]
    )
    whole = np.round(steps)
    parallel = sorted(np.abs(whole).sum(axis=0)) == [1, 1] and whole[:, 0] @ whole[:, 1] == 0
    if not parallel or np.abs(corners - np.round(corners)).max() > _TOLERANCE:
        raise ImageError(
            f"{path} lies on another grid than its image: one pixel down is {_shown(steps[:, 0])} "
            f"voxels (x, y, z), one to the right {_shown(steps[:, 1])}, the first pixel is at "
            f"voxel {_shown(start)}. Whole voxels along the image's axes are needed: resample the "
            "segmentation to its image."
        )
    found = np.round(start).astype(int)[:, None] + whole.astype(int) @ np.array(np.nonzero(mask))
    places = found[::-1]
    if np.any(places < 0) or np.any(places >= np.array(geometry.shape)[:, None]):
        raise ImageError(
            f"{path} has segmented voxels outside its image of shape {geometry.shape} (z, y, x). "
            "Is it the segmentation of another series?"
        )
    return tuple(places)


def _shown(vector: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in vector) + ")"
