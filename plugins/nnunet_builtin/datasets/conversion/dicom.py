"""Folders of DICOM series, with DICOM SEG files or other label files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_builtin.datasets.conversion.files import list_images
from nnunet_builtin.datasets.conversion.source import (
    FileLabels,
    LabelReader,
    LabelValues,
    SegmentationLabels,
    Source,
    SourceCase,
)
from nnunet_builtin.datasets.conversion.values import found_values, name_values
from nnunet_builtin.dicom.segmentation import referenced_series, segment_names
from nnunet_builtin.dicom.series import DicomSeriesFormat, is_dicom, read_header
from nnunet_core.errors import DatasetError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.workers import Workers
from nnunet_core.store.raw import find_format

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_CHANNEL_NAMES = {"CT": "CT", "MR": "MRI", "PT": "PET"}


def holds_dicom(folder: Path) -> bool:
    """Return whether a folder, or a folder in it, holds DICOM files."""
    return bool(_dicom_files(folder)) or bool(_series_folders(folder))


def find_dicom(
    images: Path,
    labels: Path,
    registry: Registry,
    channels: Sequence[str],
    names: Mapping[str, int],
    renumber: bool,
    workers: Workers,
) -> Source:
    """Describe DICOM series with their labels; arguments and errors as `find_folders`.

    With n > 1 channel names, folders `CASE_0000`, `CASE_0001`, ... are the channels of a case. DICOM SEG files belong to the
    series that they reference; with one case and one file, to each other. Other label files are named as the case.
    """
    folders = _cases(images, len(channels))
    headers = {name: read_header(paths[0]) for name, paths in folders.items()}
    found = sorted({header.modality for header in headers.values()})
    if not channels and len(found) > 1:
        raise DatasetError(
            f"{images} holds series of several modalities: {', '.join(found)}. Give every case the same."
        )
    further: dict[str, object] = {}
    reader: LabelReader
    segmentations = [labels] if labels.is_file() else _dicom_files(labels)
    if segmentations:
        by_case = _match(
            {name: header.uid for name, header in headers.items()}, segmentations, labels
        )
        values: LabelValues = _segment_values([by_case[name] for name in folders], names)
        reader, ending = (
            SegmentationLabels({str(n): int(v) for n, v in values.items() if isinstance(v, int)}),
            "",
        )
    else:
        by_case, ending = _label_files(folders, labels, registry)
        label_format = find_format(ending, registry)
        values, mapping = name_values(
            found_values(label_format, list(by_case.values()), workers), names, renumber
        )
        reader = FileLabels(label_format, mapping)
        further = {"renumbered": {str(old): new for old, new in mapping.items()}} if mapping else {}
    return Source(
        kind="dicom",
        inputs=(images, labels),
        channels=tuple(channels) or (_CHANNEL_NAMES.get(found[0], found[0] or "unknown"),),
        labels=values,
        training=tuple(SourceCase(name, paths, by_case[name]) for name, paths in folders.items()),
        test=(),
        image_ending="",
        label_ending=ending,
        image_format=DicomSeriesFormat(),
        label_reader=reader,
        further=further,
    )


def _dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files directly in a folder, of any ending."""
    found = sorted(
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    )
    return [path for path in found if is_dicom(path)]


def _series_folders(folder: Path) -> list[Path]:
    inner = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    return [path for path in inner if _dicom_files(path)]


def _cases(images: Path, channels: int) -> dict[str, tuple[Path, ...]]:
    """Return {case name: series folders in channel order}, sorted by name."""
    folders, direct = _series_folders(images), _dicom_files(images)
    others = sorted(
        path.name
        for path in images.iterdir()
        if path.is_file() and path.name.endswith((".nii.gz", ".nrrd"))
    )
    if (folders and direct) or others:
        raise DatasetError(
            f"{images} could be more than one thing: {len(folders)} folders with DICOM files, {len(direct)} DICOM files, "
            f"{len(others)} other images. --images takes one series, or one folder per case, or image files: separate them."
        )
    if direct:
        return {images.absolute().name: (images,)}
    named = {path.name.removesuffix(".dcm"): path for path in folders}
    if channels < 2:
        return {name: (path,) for name, path in named.items()}
    grouped: dict[str, dict[int, Path]] = {}
    for name, path in named.items():
        if match := _CHANNEL.fullmatch(name):
            grouped.setdefault(match["case"], {})[int(match["channel"])] = path
    wrong = [name for name, case in grouped.items() if sorted(case) != list(range(channels))]
    if wrong or sum(len(case) for case in grouped.values()) != len(named):
        raise DatasetError(
            f"{images}: with {channels} channels, every case has folders CASE_0000 to CASE_{channels - 1:04d}; found "
            f"{', '.join(sorted(named)[:6])}. Rename the folders, or give one --channel."
        )
    return {name: tuple(case[c] for c in range(channels)) for name, case in sorted(grouped.items())}


def _match(
    series: Mapping[str, str], segmentations: Sequence[Path], labels: Path
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
            f"{labels} has no DICOM SEG that references the series of: {', '.join(missing[:5])}."
        )
    if double := [name for name, uid in series.items() if len(by_uid[uid]) > 1]:
        listed = ", ".join(path.name for path in by_uid[series[double[0]]])
        raise DatasetError(
            f"{labels} has several DICOM SEG for the series of {double[0]}: {listed}. Keep one of them."
        )
    used = {by_uid[uid][0] for uid in series.values()}
    if unused := [path.name for path in segmentations if path not in used]:
        raise DatasetError(
            f"{labels}: these DICOM SEG reference none of the series: {', '.join(unused[:5])}."
        )
    return {name: by_uid[uid][0] for name, uid in series.items()}


def _segment_values(
    segmentations: Sequence[Path], given: Mapping[str, int]
) -> dict[str, int | list[int]]:
    """Give values from 1 to the segments of all files from 1, by their smallest segment number and name; or as given."""
    smallest: dict[str, int] = {}
    for path in segmentations:
        for number, name in segment_names(path).items():
            smallest[name] = min(number, smallest.get(name, number))
    if not given:
        ordered = sorted(smallest, key=lambda name: (smallest[name], name))
        return {"background": 0, **{name: value for value, name in enumerate(ordered, start=1)}}
    if unknown := sorted(set(smallest) - set(given)):
        raise UsageError(
            f"--label declares {', '.join(given)}; the DICOM SEG files also have the segments {', '.join(unknown)}. "
            "Declare all of them, or give no --label: they are numbered from 1."
        )
    if sorted(given.values()) != list(range(1, len(given) + 1)):
        raise UsageError(
            f"--label gives the values {sorted(given.values())}; segments are numbered from 1 without gaps."
        )
    return {"background": 0, **given}


def _label_files(
    folders: Mapping[str, tuple[Path, ...]], labels: Path, registry: Registry
) -> tuple[dict[str, Path], str]:
    listing = list_images(labels, registry)
    if missing := [name for name in folders if name not in listing.files]:
        raise DatasetError(
            f"{labels} lacks the labels of the series {', '.join(missing[:5])} (CASE{listing.ending})."
        )
    return {name: listing.files[name] for name in folders}, listing.ending
