"""Folders of DICOM files: the series in them, and the DICOM SEG files that were drawn on these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_builtin.dicom.segmentation import read_segmentation, referenced_series, segment_names
from nnunet_core.data.images import Geometry, Image
from nnunet_core.errors import DatasetError, ImageError, UsageError


@dataclass(frozen=True)
class SegmentationLabels:
    """Reads the DICOM SEG files of a dataset.

    Attributes:
        values: {segment name: label value}.
    """

    values: Mapping[str, int]

    def read(self, path: Path, geometry: Geometry | None) -> Image:
        """Read a DICOM SEG file onto the grid of its image; see
        `segmentation.read_segmentation`.
        """
        if geometry is None:
            raise ImageError(
                f"{path} is DICOM SEG, which is placed on the grid of its image; there is no image."
            )
        numbers = {number: self.values[name] for number, name in segment_names(path).items()}
        return Image(read_segmentation(path, geometry, numbers)[None], geometry)


def is_dicom(path: Path) -> bool:
    """Return whether a file is a DICOM file: `DICM` after a preamble of 128 bytes."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files directly in a folder, of any ending, sorted; hidden ones are left
    out.
    """
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in found if path.is_file() and is_dicom(path)]


def find_series(folder: Path) -> dict[str, Path]:
    """Return {name: folder of a series}: the folders in a folder that hold DICOM files, or itself;
    empty without any.

    Raises:
        DatasetError: It holds both, or other images too.
    """
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    series = [path for path in inner if not path.name.startswith(".") and dicom_files(path)]
    direct = dicom_files(folder)
    if not series and not direct:
        return {}
    others = [path for path in folder.iterdir() if path.name.endswith((".nii.gz", ".nrrd"))]
    if (series and direct) or others:
        raise DatasetError(
            f"{folder} could be more than one thing: {len(series)} folders with DICOM files, "
            f"{len(direct)} DICOM files, {len(others)} other images. --images takes one series, or "
            "one folder per case, or image files: separate them."
        )
    if direct:
        return {folder.absolute().name: folder}
    return {path.name.removesuffix(".dcm"): path for path in series}


def find_segmentations(
    series: Mapping[str, str],
    segmentations: Sequence[Path],
    place: Path,
    given: Mapping[str, int],
) -> tuple[dict[str, Path], dict[str, int], SegmentationLabels]:
    """Match series {case: UID} with DICOM SEG files, and give values to their segments.

    Files belong to the series that they reference; with one case and one file, to each other.
    Values from 1 go to the segments of all files by their smallest segment number and name; or they
    are as given.

    Returns:
        {case: file}, {segment name: value} with the background, and what reads the files to these
        values.

    Raises:
        DatasetError: A series without a file or with several, or a file without a series.
        UsageError: Segments that `given` lacks, or gaps in its values.
    """
    by_case = _match(series, segmentations, place)
    values = _segment_values([by_case[name] for name in series], given)
    return by_case, values, SegmentationLabels(values)


def _match(
    series: Mapping[str, str], segmentations: Sequence[Path], place: Path
) -> dict[str, Path]:
    """Return {case: its DICOM SEG file}, by the series that the files reference."""
    if len(series) == len(segmentations) == 1:
        return {next(iter(series)): segmentations[0]}
    by_uid: dict[str, list[Path]] = {}
    for path in segmentations:
        for uid in referenced_series(path):
            by_uid.setdefault(uid, []).append(path)
    if missing := [name for name, uid in series.items() if uid not in by_uid]:
        raise DatasetError(
            f"{place} has no DICOM SEG that references the series of: {', '.join(missing[:5])}."
        )
    if double := [name for name, uid in series.items() if len(by_uid[uid]) > 1]:
        listed = ", ".join(path.name for path in by_uid[series[double[0]]])
        raise DatasetError(
            f"{place} has several DICOM SEG for the series of {double[0]}: {listed}. Keep one of "
            "them."
        )
    used = {by_uid[uid][0] for uid in series.values()}
    if unused := [path.name for path in segmentations if path not in used]:
        raise DatasetError(
            f"{place}: these DICOM SEG reference none of the series: {', '.join(unused[:5])}."
        )
    return {name: by_uid[uid][0] for name, uid in series.items()}


def _segment_values(segmentations: Sequence[Path], given: Mapping[str, int]) -> dict[str, int]:
    smallest: dict[str, int] = {}
    for path in segmentations:
        for number, name in segment_names(path).items():
            smallest[name] = min(number, smallest.get(name, number))
    if not given:
        ordered = sorted(smallest, key=lambda name: (smallest[name], name))
        return {"background": 0, **{name: value for value, name in enumerate(ordered, start=1)}}
    if unknown := sorted(set(smallest) - set(given)):
        raise UsageError(
            f"--label declares {', '.join(given)}; the DICOM SEG files also have the segments "
            f"{', '.join(unknown)}. Declare all of them, or give no --label: they are numbered "
            "from 1."
        )
    if sorted(given.values()) != list(range(1, len(given) + 1)):
        raise UsageError(
            f"--label gives the values {sorted(given.values())}; segments are numbered from 1 "
            "without gaps."
        )
    return {"background": 0, **given}
