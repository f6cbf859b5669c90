"""The reader of nnU-Net's dataset folders: dataset.json of v1 and v2, imagesTr and labelsTr; and
folders of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_builtin.datasets.metadata import CASES_FILE, metadata_beside, training_metadata
from nnunet_builtin.datasets.naming import CHANNEL_FILE, by_channel, entry_names, list_files
from nnunet_core.data.dataset import CaseFiles, Dataset, DatasetContent
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError, StorageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import checked_ending
from nnunet_core.stages.formats import find_format, known_endings

FILE = "dataset.json"
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
        if not path.is_file():
            raise DatasetError(
                f"{folder} has no dataset.json; see 'dataset.json' in the documentation for its "
                "content."
            )
        document = read_document(path)
        ending = str(document.get("file_ending", _ENDING))
        image_format = find_format(ending, registry, document.get("image_format"), path)
        channels = channel_names(document, path)
        label_ending = find_label_ending(folder, document, registry)
        find_format(label_ending, registry, document.get("label_format"), path, "label_format")
        cases = list_cases(folder / "imagesTr", ending, len(channels), image_format)
        listed = entry_names(document.get("training"), ending)
        chosen = _select(cases, listed, folder) if listed else cases
        metadata = training_metadata(document, path, [case.name for case in chosen])
        if any(case.metadata for case in cases):
            raise DatasetError(
                f"{folder / 'imagesTr' / CASES_FILE} describes training cases: that belongs in "
                f"'cases' of {path}. Move it there."
            )
        return DatasetContent(
            channels=channels,
            labels=read_labels(document, path),
            training=_with_labels(chosen, folder / "labelsTr", label_ending, metadata),
            ending=ending,
            label_ending=label_ending,
            image_format=document.get("image_format"),
            label_format=document.get("label_format"),
            document=document,
        )

    def cases(self, folder: Path, dataset: Dataset) -> list[CaseFiles]:
        """List the cases of a folder of images; see `list_cases`."""
        return list_cases(folder, dataset.ending, len(dataset.channels), dataset.image_format)


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
    return Labels.from_names(names, document.get("regions_class_order"), source)


def channel_names(document: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return `channel_names` (v2) or `modality` (v1) of a dataset.json, by channel number. Raises
    DatasetError.
    """
    raw = document.get("channel_names", document.get("modality"))
    if not isinstance(raw, Mapping) or not raw:
        raise DatasetError(
            f"{path}: 'channel_names' (or 'modality') is missing; it maps '0' to the first "
            "channel's name."
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
    declared, images = document.get("label_ending"), str(document.get("file_ending", _ENDING))
    if declared is not None:
        return checked_ending(declared, folder / FILE)
    labels, known = folder / "labelsTr", known_endings(registry)
    names = list(list_files(labels, ""))
    if not names or any(name.endswith(images) for name in names):
        return _READ_ONLY.get(images, images)
    found = {max((e for e in known if name.endswith(e)), key=len, default="") for name in names}
    found.discard("")
    if len(found) > 1:
        raise DatasetError(
            f"{labels} holds files of several endings: {', '.join(sorted(found))}. Name one as "
            f"'label_ending' in {folder / FILE}."
        )
    return found.pop() if found else images


def list_cases(
    folder: Path, ending: str, channels: int, image_format: ImageFormat
) -> list[CaseFiles]:
    """List the cases of a folder of images CASE_0000.ext, each complete with every channel, sorted
    by name.

    Raises:
        DatasetError: No folder, no image of the ending, or missing channels (all of them are
            listed).
    """
    if not folder.is_dir():
        raise DatasetError(f"The image folder {folder} does not exist.")
    named = list_files(folder, ending)
    found = by_channel(named)
    if not found:
        plain = f"{next(iter(named))}{ending}" if named else ""
        hint = (
            f" It holds {plain} and {len(named) - 1} more without a channel number: 4D files of "
            "the decathlon layout are converted with: nnunet dataset convert FOLDER"
        )
        raise DatasetError(
            f"{folder} holds no image named CASE_0000{ending}.{hint if plain else ''}"
        )
    expected = range(_files_per_case(found, channels, image_format))
    missing = [
        f"{n}_{c:04d}{ending}" for n, case in found.items() for c in expected if c not in case
    ]
    if missing:
        raise DatasetError(
            f"{folder} lacks {len(missing)} channel files ({channels} channels are declared): "
            f"{', '.join(missing[:10])}."
        )
    metadata = metadata_beside(folder, found)
    return [
        CaseFiles(name, tuple(found[name][c] for c in expected), metadata=metadata.get(name, {}))
        for name in sorted(found)
    ]


def _files_per_case(
    found: Mapping[str, Mapping[int, Path]], channels: int, image_format: ImageFormat
) -> int:
    """Return the number of files per case: one file holds all channels when it is an RGB image."""
    if channels > 1 and all(list(case) == [0] for case in found.values()):
        first = next(iter(found.values()))[0]
        if image_format.header(first).channels == channels:
            return 1
    return channels


def _with_labels(
    cases: Sequence[CaseFiles], folder: Path, ending: str, metadata: Mapping[str, Mapping[str, Any]]
) -> tuple[CaseFiles, ...]:
    labels = {case.name: folder / f"{case.name}{ending}" for case in cases}
    if missing := [name for name, path in labels.items() if not path.is_file()]:
        raise DatasetError(
            f"{folder} lacks the labels of {len(missing)} cases: {', '.join(missing[:10])} "
            f"(CASE{ending})."
        )
    return tuple(
        replace(case, label=labels[case.name], metadata=metadata.get(case.name, {}))
        for case in cases
    )


def _select(cases: Iterable[CaseFiles], listed: Sequence[str], folder: Path) -> list[CaseFiles]:
    by_name = {case.name: case for case in cases}
    if len(set(listed)) != len(listed):
        double = sorted({name for name in listed if listed.count(name) > 1})
        raise DatasetError(
            f"{folder / FILE} lists these training cases more than once: {', '.join(double)}."
        )
    missing = [name for name in listed if name not in by_name]
    if missing:
        raise DatasetError(
            f"{folder / FILE} lists {len(missing)} training cases without images in "
            f"{folder / 'imagesTr'}: {', '.join(missing[:10])}."
        )
    return [by_name[name] for name in sorted(listed)]
