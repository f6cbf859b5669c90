"""The reader of nnU-Net's dataset folders: dataset.json of v1 and v2, imagesTr and labelsTr; and
folders of images.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_builtin.datasets.metadata import CASES_FILE, metadata_beside, training_metadata
from nnunet_builtin.datasets.named_files import check_entries, named_cases, select
from nnunet_builtin.datasets.naming import CHANNEL_FILE, by_channel, read_entries
from nnunet_core.data.dataset import CaseFiles, Dataset, DatasetContent
from nnunet_core.data.folders import list_files, without_ending
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError, ImageError, StorageError, counted, listed, nearest
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import checked_ending
from nnunet_core.stages.formats import find_format, known_endings

FILE = "dataset.json"
#: In dataset.json: mm within which two surfaces count as one, by label, or one number for all.
TOLERANCE = "surface_tolerance_mm"
_ENDING = ".nii.gz"
#: Endings of images that labels and predictions cannot have: {ending: theirs, when dataset.json
#: names none}.
_READ_ONLY = {".dcm": ".nii.gz", ".jpg": ".png", ".jpeg": ".png"}


class NnunetReader:
    """Reads dataset folders of nnU-Net v1 and v2, and folders of images CASE_0000.ext
    (contracts.DatasetReader).
    """

    looks_for = "dataset.json, imagesTr and labelsTr; or images CASE_0000.ext"

    def fits(self, folder: Path) -> bool:
        """Return whether there is a dataset.json, or an image with a channel number."""
        if (folder / FILE).is_file():
            return True
        return any(CHANNEL_FILE.search(path.name) for path in folder.iterdir())

    def read(self, folder: Path, registry: Registry) -> DatasetContent:
        """Read dataset.json, and find the files of every training case.

        Raises:
            DatasetError: dataset.json is missing or invalid, a case is listed twice, or files of
                cases are missing.
        """
        path = folder / FILE
        described, document = self.describe(folder, registry), read_document(path)
        ending = image_ending(document)
        image_format = find_format(ending, registry, document.get("image_format"), path)
        channels = channel_names(document, path)
        label_ending = described.label_ending
        find_format(label_ending, registry, document.get("label_format"), path, "label_format")
        if "dataset" in document:
            training = named_cases(document, path)
            _check_channels(training, len(channels), image_format, path)
        else:
            listed_cases = list_cases(folder / "imagesTr", ending, len(channels), image_format)
            training = _labelled(listed_cases, document, path, ending, label_ending)
        metadata = training_metadata(document, path, [case.name for case in training])
        # how predictions are judged is no part of what they were trained on
        identity = {name: value for name, value in document.items() if name != TOLERANCE}
        return replace(
            described,
            channels=channels,
            training=tuple(
                replace(case, metadata=metadata[case.name]) if case.name in metadata else case
                for case in training
            ),
            document=identity,
        )

    def describe(self, source: Path, registry: Registry) -> DatasetContent:
        """Read what dataset.json says of label files; the files themselves need not be there
        (abilities.DescribesLabels).

        Raises:
            DatasetError: dataset.json is missing or invalid.
        """
        path = source if source.suffix == ".json" else source / FILE
        if path != source and not path.is_file():
            raise DatasetError(
                f"{source} has no dataset.json; see 'dataset.json' in the documentation for its "
                "content."
            )
        document = read_document(path)
        labels = read_labels(document, path)
        return DatasetContent(
            channels=(),
            labels=labels,
            training=(),
            ending=image_ending(document),
            label_ending=find_label_ending(path.parent, document, registry),
            image_format=document.get("image_format"),
            label_format=document.get("label_format"),
            original_values=original_values(document, labels, path),
            tolerances=surface_tolerances(document, labels, path),
        )

    def cases(self, folder: Path, dataset: Dataset) -> list[CaseFiles]:
        """List the cases of a folder of images; see `list_cases`."""
        channels = len(dataset.channels)
        return list_cases(folder, dataset.ending, channels, dataset.image_format, complete=False)


def read_document(path: Path) -> dict[str, Any]:
    """Read a dataset.json.

    Raises:
        DatasetError: It cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        document = files.read_json(path)
    except StorageError as error:
        raise DatasetError(str(error)) from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path} holds a {type(document).__name__}; it must hold an object.")
    return document


def read_labels(document: Mapping[str, Any], source: object) -> Labels:
    """Read `labels` of a dataset.json of either layout: {"1": "liver"} (v1) or {"liver": 1} (v2).

    Args:
        document: The parsed dataset.json.
        source: Its path, for messages.

    Raises:
        DatasetError: No labels, two of one name, or what `Labels.from_names` refuses.
    """
    return Labels.from_names(
        label_names(document, source), document.get("regions_class_order"), source
    )


def label_names(document: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return {name: value, or values of a region} of `labels` of a dataset.json of either layout.

    Raises:
        DatasetError: No labels, or two of one name.
    """
    raw = document.get("labels")
    if not isinstance(raw, Mapping) or not raw:
        raise DatasetError(
            f"{source}: 'labels' is missing; it maps values to names, for example {{'1': 'liver'}}."
        )
    names = dict(raw)
    if all(str(key).lstrip("-").isdigit() for key in raw):
        names = {str(name): int(value) for value, name in raw.items()}
    if len(names) != len(raw):
        raise DatasetError(f"{source}: two labels have the same name: {list(raw.values())}.")
    return names


def original_values(document: Mapping[str, Any], labels: Labels, source: object) -> dict[int, int]:
    """Return {value: the one that `dataset convert --renumber` found in the files}, from
    `renumbered` of a dataset.json; empty where nothing was renumbered.

    Raises:
        DatasetError: It maps other things than values to values, or not to every value of the
            labels.
    """
    raw = document.get("renumbered", {})
    try:
        found = {int(new): int(old) for old, new in raw.items()}
        fits = not found or set(found) == labels.values
        if not fits or len(found) != len(raw) or not all(0 <= v < 1 << 16 for v in found.values()):
            raise ValueError
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{source}: 'renumbered' must map original values to all values of 'labels', "
            f"{{'0': 0, '255': 1}}; got {raw!r}."
        ) from error
    return found


def surface_tolerances(
    document: Mapping[str, Any], labels: Labels, source: object
) -> dict[str, float]:
    """Return {label or region: mm} of `surface_tolerance_mm` of a dataset.json, which is one number
    for all or {name: mm}; empty where there is none.

    Raises:
        DatasetError: A name that is no label or region, or a value that is no positive number.
    """
    known = tuple(labels.named)
    raw = document.get(TOLERANCE, {})
    found = dict(raw) if isinstance(raw, Mapping) else dict.fromkeys(known, raw)
    if unknown := sorted(set(found) - set(known)):
        raise DatasetError(
            f"{source}: '{TOLERANCE}' names {', '.join(unknown)}, which is no label."
            f"{nearest(unknown[0], known)} Labels: {', '.join(known)}."
        )
    for name, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise DatasetError(
                f"{source}: '{TOLERANCE}' of {name} is {value!r}; it must be a positive number of "
                "millimetres."
            )
    return {name: float(value) for name, value in found.items()}


def channel_names(document: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return `channel_names` (v2) or `modality` (v1) of a dataset.json, by channel number. Raises
    DatasetError.
    """
    found = [document[key] for key in ("channel_names", "modality") if key in document]
    named = [dict(enumerate(raw)) if isinstance(raw, list) else raw for raw in found]
    raw = named[0] if named else None
    if not isinstance(raw, Mapping) or not raw:
        raise DatasetError(
            f"{path}: 'channel_names' (or 'modality') is missing; it maps '0' to the first "
            "channel's name."
        )
    if named[0] != named[-1]:
        raise DatasetError(
            f"{path}: 'channel_names' is {found[0]} and 'modality' is {found[-1]}. Remove the one "
            "that is not right."
        )
    try:
        by_index = {int(key): str(name) for key, name in raw.items()}
    except ValueError as error:
        raise DatasetError(
            f"{path}: the keys of 'channel_names' must be channel numbers, got {list(raw)}."
        ) from error
    if sorted(by_index) != list(range(len(by_index))):
        raise DatasetError(
            f"{path}: channel numbers must be 0..{len(by_index) - 1}, got {sorted(by_index)}."
        )
    return tuple(by_index[index] for index in sorted(by_index))


def find_label_ending(folder: Path, document: Mapping[str, Any], registry: Registry) -> str:
    """Return the ending of label files: `label_ending` of dataset.json, else that of the images,
    else what is there.

    Raises:
        DatasetError: labelsTr holds files of several known endings, and none is that of the images.
    """
    declared, images = document.get("label_ending"), image_ending(document)
    if declared is not None:
        dotted = _dotted(declared) if isinstance(declared, str) else declared
        return checked_ending(dotted, folder / FILE)
    labels = folder / "labelsTr"
    known = sorted(known_endings(registry), key=len, reverse=True)  # .nii.gz before .gz
    ending = re.compile(f"(?s)[^.].*?({'|'.join(map(re.escape, known))})", re.IGNORECASE)
    names = os.listdir(labels) if labels.is_dir() else []  # noqa: PTH208 - Paths take long to make
    found = {match[1].lower() for match in map(ending.fullmatch, names) if match}
    if not found or images in found:
        return _READ_ONLY.get(images, images)
    if len(found) > 1:
        raise DatasetError(
            f"{labels} holds files of several endings: {', '.join(sorted(found))}. Name one as "
            f"'label_ending' in {folder / FILE}."
        )
    return found.pop()


def image_ending(document: Mapping[str, Any]) -> str:
    """Return the ending of image files, `file_ending` of a dataset.json, in small letters."""
    return _dotted(str(document.get("file_ending", _ENDING)))


def _dotted(ending: str) -> str:
    return ending.lower() if ending.startswith(".") else f".{ending.lower()}"


def list_cases(
    folder: Path, ending: str, channels: int, image_format: ImageFormat, complete: bool = True
) -> list[CaseFiles]:
    """List the cases of a folder of images CASE_0000.ext, sorted by name.

    Args:
        folder: Where the images are.
        ending: Of the images.
        channels: How many are declared.
        image_format: Reads the images.
        complete: Whether every case must have every channel; else those that have not get a
            `problem`, as long as another has.

    Raises:
        DatasetError: No folder, no image of the ending, or missing channels (all of them are
            listed).
    """
    if not folder.is_dir():
        raise DatasetError(f"The image folder {folder} does not exist.")
    found = by_channel(list_files(folder, ending))
    if not found:
        raise DatasetError(
            f"{folder} holds no image named CASE_0000{ending}. "
            f"{_what_is_there(folder, ending, image_format)}"
        )
    expected = range(_files_per_case(found, channels, image_format))
    problems: dict[str, str] = {}
    every: list[str] = []
    for name, there in found.items():
        if missing := [f"{name}_{c:04d}{ending}" for c in expected if c not in there]:
            every += missing
            problems[name] = _lacking(folder, missing, channels)
    if problems and (complete or len(problems) == len(found)):
        raise DatasetError(_lacking(folder, every, channels))
    metadata = metadata_beside(folder, found)
    cases = []
    for name in sorted(found):
        images = tuple(found[name][c] for c in expected if c in found[name])
        images = images or tuple(found[name].values())  # of an incomplete case, whatever it has
        about = metadata.get(name, {})
        cases.append(CaseFiles(name, images, metadata=about, problem=problems.get(name, "")))
    return cases


def _lacking(folder: Path, missing: Sequence[str], channels: int) -> str:
    return (
        f"{folder} lacks {counted(len(missing), 'channel file')} "
        f"({counted(channels, 'channel')} declared): {listed(missing)}."
    )


def _what_is_there(folder: Path, ending: str, image_format: ImageFormat) -> str:
    """Return what a folder without images of the right name holds, and the nearest right name."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not names:
        return "It is empty."
    there = f"It holds {listed(names)}."
    same = [name for name in names if without_ending(name, ending) != name]
    if not same:
        return (
            f"{there} Images end in '{ending}' here ('file_ending' of dataset.json): correct that "
            "where the files are right, or convert them."
        )
    try:
        image_format.header(folder / same[0])
    except ImageError as error:
        return f"{there} {error}"
    stem = without_ending(same[0], ending)
    short = re.fullmatch(r"(.+)_(\d{1,3})", stem)
    right = f"{short[1]}_{int(short[2]):04d}" if short else f"{stem}_0000"
    return (
        f"{there} The number of the channel has four digits: rename {same[0]} to {right}{ending}."
    )


def _files_per_case(
    found: Mapping[str, Mapping[int, Path]], channels: int, image_format: ImageFormat
) -> int:
    """Return the number of files per case: one file holds all channels when it is an RGB image,
    perhaps with transparency (alpha) besides.
    """
    joined = (channels, channels + 1)
    if channels > 1 and all(list(case) == [0] for case in found.values()):
        for case in found.values():
            try:
                return 1 if image_format.header(case[0]).channels in joined else channels
            except ImageError:  # of this case alone; loading it will say so
                continue
    return channels


def _labelled(
    cases: list[CaseFiles], document: Mapping[str, Any], path: Path, ending: str, label_ending: str
) -> list[CaseFiles]:
    """Return the cases of imagesTr that `training` lists, or all when it lists none, with the files
    of labelsTr.
    """
    images = path.parent / "imagesTr"
    if any(case.metadata for case in cases):
        raise DatasetError(
            f"{images / CASES_FILE} describes training cases: that belongs in 'cases' of {path}. "
            "Move it there."
        )
    entries = read_entries(document.get("training"), ending)
    chosen = select(cases, entries, path) if entries else cases
    training = _with_labels(chosen, path.parent / "labelsTr", label_ending)
    check_entries(entries, training, path)
    return training


def _with_labels(cases: Sequence[CaseFiles], folder: Path, ending: str) -> list[CaseFiles]:
    found = list_files(folder, ending, only_files=True)
    if missing := [case.name for case in cases if case.name not in found]:
        others = [path.name for path in list_files(folder, "").values()]
        there = f" It holds {listed(others)}." if others and len(missing) == len(cases) else ""
        raise DatasetError(
            f"{folder} lacks the labels of {counted(len(missing), 'case')}: {listed(missing)} "
            f"(CASE{ending}).{there}"
        )
    return [CaseFiles(c.name, c.images, found[c.name], c.metadata, c.problem) for c in cases]


def _check_channels(
    cases: Sequence[CaseFiles], channels: int, image_format: ImageFormat, path: Path
) -> None:
    found = {case.name: dict(enumerate(case.images)) for case in cases}
    expected = _files_per_case(found, channels, image_format)
    if wrong := [case for case in cases if len(case.images) != expected]:
        raise DatasetError(
            f"{path}: 'dataset' names {counted(len(wrong[0].images), 'image')} of case "
            f"{wrong[0].name}; {counted(channels, 'channel')} are declared."
        )
