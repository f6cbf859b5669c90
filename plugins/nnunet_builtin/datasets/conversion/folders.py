"""Plain folders of images and labels: which files are a case, its channels and its label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_builtin.datasets.conversion.decathlon import STACKED
from nnunet_builtin.datasets.conversion.listing import Listing, list_images
from nnunet_builtin.datasets.conversion.series import find_series
from nnunet_builtin.datasets.conversion.source import FileLabels, Source, writers_of
from nnunet_builtin.datasets.conversion.values import found_values, name_values
from nnunet_builtin.datasets.naming import CHANNEL, by_channel
from nnunet_core.data.dataset import CaseFiles
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError, MissingFolderError, UsageError, counted, listed
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.formats import find_format

_PICTURE_CHANNELS = {1: ("grey",), 3: ("R", "G", "B")}
_WITH_ALPHA = {count + 1: count for count in _PICTURE_CHANNELS}
PICTURES = (".png", ".bmp", ".jpg", ".jpeg")


def find_folders(
    images: Path,
    labels: Path,
    registry: Registry,
    channels: Sequence[str] = (),
    names: Mapping[str, int] | None = None,
    renumber: bool = False,
    workers: Workers | None = None,
) -> Source:
    """Describe folders of images and labels without a dataset.json: files of any image format, or
    DICOM series.

    Args:
        images: Files `CASE_0000.ext`, `CASE_0001.ext`, ... or `CASE.ext`; or DICOM series, one
            folder per case.
        labels: Files `CASE.ext`, whose ending may be another one; or DICOM SEG files; or one DICOM
            SEG file.
        registry: Image formats.
        channels: Channel names; needed except for pictures and for DICOM, whose modality is known.
        names: {label name: value in the files}; default: see `name_values`.
        renumber: Map values that are not consecutive.
        workers: Processes to read the label files in; None reads them in this one.

    Raises:
        UsageError: A folder is missing; channel names are needed, or are not as many as channels.
        DatasetError: The folders could be more than one thing or none, or images and labels do not
            belong together.
        ImageError: A file cannot be read.
    """
    if not images.is_dir() or not labels.exists():
        absent = images if not images.is_dir() else labels
        raise MissingFolderError(absent, "--images and --labels take existing folders.")
    pool = workers or Workers()
    series = find_series(images, labels, registry, channels, names or {}, renumber, pool)
    if series is not None:
        return series
    pictures, masks = list_images(images, registry), list_images(labels, registry)
    cases = _cases(pictures, masks)
    image_format = _image_format(pictures.ending, len(cases[0].images), registry)
    label_format = find_format(masks.ending, registry)
    named = _channel_names(cases[0], image_format, pictures.ending, channels)
    label_files = [case.label for case in cases if case.label is not None]
    values, mapping = name_values(
        found_values(label_format, label_files, pool), names or {}, renumber
    )
    Labels.from_names(values, source="--label")
    return Source(
        kind="folders",
        inputs=(images, labels),
        channels=named,
        labels=values,
        training=tuple(cases),
        test=(),
        image_ending=pictures.ending,
        label_ending=masks.ending,
        image_format=image_format,
        label_reader=FileLabels(label_format, mapping),
        writers=writers_of(registry, pictures.ending),
        further={"renumbered": {str(old): new for old, new in mapping.items()}} if mapping else {},
    )


def _image_format(ending: str, files: int, registry: Registry) -> ImageFormat:
    """Return the reader of images; a single NIfTI file per case may be 4D."""
    if files == 1 and ending in (".nii.gz", ".nii"):
        stacked: ImageFormat = build(registry.resolve("image_format", STACKED))
        return stacked
    return find_format(ending, registry)


def _cases(images: Listing, labels: Listing) -> list[CaseFiles]:
    """Match image files with label files, as one file per case or one per channel."""
    grouped = by_channel(images.files)
    split = any(case in labels.files for case in grouped)
    whole = any(stem in labels.files for stem in images.files)
    if split and whole:
        raise DatasetError(
            f"{images.folder} could hold one file per case or one per channel (CASE_0000): "
            f"{labels.folder} has labels for both. Rename or remove one kind."
        )
    found = grouped if split else {stem: {0: path} for stem, path in images.files.items()}
    if split and (plain := sorted(s for s in images.files if not CHANNEL.fullmatch(s))):
        raise DatasetError(
            f"{images.folder} holds {plain[0]}{images.ending} without a channel number (CASE_0000)."
        )
    _check_matches(set(found), images, labels)
    numbers = list(range(max(len(case) for case in found.values())))
    if uneven := sorted(name for name, case in found.items() if sorted(case) != numbers):
        raise DatasetError(
            f"{images.folder}: {len(uneven)} cases lack channel files, for example {uneven[0]}, "
            f"which has {sorted(found[uneven[0]])}; every case needs {numbers}."
        )
    return [
        CaseFiles(n, tuple(found[n][c] for c in numbers), labels.files[n]) for n in sorted(found)
    ]


def _check_matches(cases: set[str], images: Listing, labels: Listing) -> None:
    rule = (
        f"The label of CASE{images.ending}, or of CASE_0000{images.ending}, is named "
        f"CASE{labels.ending}."
    )
    if missing := sorted(cases - set(labels.files)):
        raise DatasetError(
            f"{labels.folder} lacks the labels of {counted(len(missing), 'image')} of "
            f"{images.folder}: {listed(missing)}. {rule}{_there(labels)}"
        )
    if extra := sorted(set(labels.files) - cases):
        raise DatasetError(
            f"{images.folder} lacks the images of {counted(len(extra), 'label')} of "
            f"{labels.folder}: {listed(extra)}. {rule}"
        )


def _there(labels: Listing) -> str:
    return f" It holds {listed([path.name for path in labels.files.values()])}."


def _channel_names(
    case: CaseFiles, image_format: ImageFormat, ending: str, given: Sequence[str]
) -> tuple[str, ...]:
    count = sum(image_format.header(path).channels for path in case.images)
    alpha = _WITH_ALPHA.get(count) if ending.lower() in PICTURES else None
    colours = count if alpha is None else alpha
    if not given and ending.lower() in PICTURES and colours in _PICTURE_CHANNELS:
        return _PICTURE_CHANNELS[colours]
    if alpha is not None and alpha == len(given):
        return tuple(given)  # the transparency is left out when the pictures are read
    if len(given) != count:
        hint = (
            f" If the last one is alpha (transparency), name the other {alpha}: constant alpha is "
            "left out."
        )
        raise UsageError(
            f"{case.images[0]} has {count} channels, --channel names {len(given)}. Give one "
            "--channel NAME per channel: CT for computed tomography in Hounsfield units, noNorm "
            f"for no normalisation, any other name otherwise.{hint if alpha else ''}"
        )
    return tuple(given)
