"""Raw datasets on disk: find them, and read dataset.json of either layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_core.data.dataset import DEFAULT_ENDING, CaseFiles, Dataset, find_cases
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.data.metadata import CASES_FILE, training_metadata
from nnunet_core.errors import DatasetError, StorageError, UsageError, nearest
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build
from nnunet_core.runtime import files

_FOLDER_NAME = re.compile(r"(?:Task|Dataset)(\d+)_(.+)")


#: Endings of images that labels and predictions cannot have: {ending: theirs, when dataset.json names none}.
READ_ONLY = {".dcm": ".nii.gz", ".jpg": ".png", ".jpeg": ".png"}


def open_dataset(
    reference: str, raw: Path, registry: Registry, preprocessed: Path | None = None
) -> Dataset:
    """Open a dataset by path, by id (`4`, `004`) or by name (`Task004_Hippocampus`, `Hippocampus`) in the raw folder.

    Args:
        reference: Path, id or name.
        raw: Where ids and names are looked up.
        registry: Provides image formats.
        preprocessed: Of the workspace, to remember content digests in; None reads every file again.

    Raises:
        UsageError: There is no such dataset, or more than one.
        DatasetError: Its dataset.json is missing or invalid, it is empty, or files of cases are missing.
    """
    folder = find_dataset(reference, raw)
    path = folder / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"{folder} has no dataset.json; see 'dataset.json' in the documentation for its content."
        )
    try:
        document = files.read_json(path)
    except StorageError as error:
        raise DatasetError(str(error)) from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path} holds a {type(document).__name__}; it must hold an object.")
    ending = str(document.get("file_ending", DEFAULT_ENDING))
    image_format = find_format(ending, registry, document.get("image_format"))
    channels = _channels(document, path)
    label_ending = find_label_ending(folder, document, registry)
    label_format = find_format(label_ending, registry, document.get("label_format"))
    cases = _training_images(folder, document, ending, len(channels), image_format)
    metadata = training_metadata(document, path, [case.name for case in cases])
    return Dataset(
        folder=folder,
        name=folder.name,
        channels=channels,
        labels=Labels.from_dataset_json(document, path),
        ending=ending,
        image_format=image_format,
        label_ending=label_ending,
        label_format=label_format,
        training=_with_labels(cases, folder / "labelsTr", label_ending, metadata),
        document=document,
        digests=files.Digests(
            None if preprocessed is None else preprocessed / folder.name / "digests.json"
        ),
    )


def find_label_ending(folder: Path, document: Mapping[str, Any], registry: Registry) -> str:
    """Return the ending of label files: `label_ending` of dataset.json, else that of the images, else what is there.

    Raises:
        DatasetError: labelsTr holds files of several known endings, and none is that of the images.
    """
    declared, images = (
        document.get("label_ending"),
        str(document.get("file_ending", DEFAULT_ENDING)),
    )
    if isinstance(declared, str):
        return declared
    known = {
        e
        for f in registry.components("image_format")
        for e in f.component.settings.get("endings", ())
    }
    labels = folder / "labelsTr"
    names = (
        [path.name for path in labels.iterdir() if not path.name.startswith(".")]
        if labels.is_dir()
        else []
    )
    if not names or any(name.endswith(images) for name in names):
        return READ_ONLY.get(images, images)
    found = sorted(
        {max((e for e in known if name.endswith(e)), key=len, default="") for name in names} - {""}
    )
    if len(found) > 1:
        raise DatasetError(
            f"{labels} holds files of several endings: {', '.join(found)}. Name one as 'label_ending' in "
            f"{folder / 'dataset.json'}."
        )
    return found[0] if found else images


def find_dataset(reference: str, raw: Path) -> Path:
    """Return the folder of a dataset; see `open_dataset`."""
    path = Path(reference).expanduser()
    if path.is_dir() and (path / "dataset.json").is_file():
        return path.absolute()
    known = sorted(p for p in raw.iterdir() if p.is_dir()) if raw.is_dir() else []
    hits = [folder for folder in known if _matches(folder.name, reference)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UsageError(
            f"'{reference}' names more than one dataset in {raw}: {', '.join(h.name for h in hits)}."
        )
    if path.is_dir():
        return path.absolute()
    names = [folder.name for folder in known]
    raise UsageError(
        f"There is no dataset '{reference}': no such folder, and no such id or name in {raw}.{nearest(reference, names)} "
        f"Datasets there: {', '.join(names) or 'none'}."
    )


def _matches(folder_name: str, reference: str) -> bool:
    match = _FOLDER_NAME.fullmatch(folder_name)
    by_id = bool(match and reference.isdigit() and int(match[1]) == int(reference))
    return reference == folder_name or by_id or bool(match and match[2] == reference)


def find_format(ending: str, registry: Registry, reference: str | None = None) -> ImageFormat:
    """Return the image format of a file ending, or the one that is named.

    Raises:
        DatasetError: No installed format reads the ending, or several plugins claim it and none is built in.
    """
    if reference is not None:
        return build(registry.resolve("image_format", reference))
    formats = registry.components("image_format")
    hits = [f for f in formats if ending.lower() in f.component.settings.get("endings", ())]
    own = [f for f in hits if f.is_own]
    if not hits:
        known = sorted({e for f in formats for e in f.component.settings.get("endings", ())})
        raise DatasetError(
            f"No image format reads files ending in '{ending}'. Known endings: {', '.join(known)}."
        )
    if len(hits) > 1 and not own:
        names = ", ".join(f.reference for f in hits)
        raise DatasetError(
            f"Several image formats read '{ending}': {names}. Name one as 'image_format' in dataset.json."
        )
    return build((own or hits)[0])


def _channels(document: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    raw = document.get("channel_names", document.get("modality"))
    if not isinstance(raw, Mapping) or not raw:
        raise DatasetError(
            f"{path}: 'channel_names' (or 'modality') is missing; it maps '0' to the first channel's name."
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


def _training_images(
    folder: Path, document: Mapping[str, Any], ending: str, channels: int, image_format: ImageFormat
) -> list[CaseFiles]:
    cases = find_cases(folder / "imagesTr", ending, channels, image_format)
    if any(case.metadata for case in cases):
        raise DatasetError(
            f"{folder / 'imagesTr' / CASES_FILE} describes training cases: that belongs in 'cases' of "
            f"{folder / 'dataset.json'}. Move it there."
        )
    listed = _listed(document, ending)
    return _select(cases, listed, folder) if listed else cases


def _with_labels(
    cases: Sequence[CaseFiles], folder: Path, ending: str, metadata: Mapping[str, Mapping[str, Any]]
) -> tuple[CaseFiles, ...]:
    labelled = [
        CaseFiles(c.name, c.images, folder / f"{c.name}{ending}", metadata.get(c.name, {}))
        for c in cases
    ]
    missing = [
        case.name for case in labelled if case.label is not None and not case.label.is_file()
    ]
    if missing:
        raise DatasetError(
            f"{folder} lacks the labels of {len(missing)} cases: {', '.join(missing[:10])} (CASE{ending})."
        )
    return tuple(labelled)


def _listed(document: Mapping[str, Any], ending: str) -> list[str]:
    """Return the training cases that a v1 dataset.json lists; empty when it lists none."""
    entries = document.get("training")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return []
    images = [
        entry.get("image", "") if isinstance(entry, Mapping) else str(entry) for entry in entries
    ]
    return [
        str(image).replace("\\", "/").rpartition("/")[2].removesuffix(ending) for image in images
    ]


def _select(cases: Iterable[CaseFiles], listed: Sequence[str], folder: Path) -> list[CaseFiles]:
    by_name = {case.name: case for case in cases}
    if len(set(listed)) != len(listed):
        double = sorted({name for name in listed if listed.count(name) > 1})
        raise DatasetError(
            f"{folder / 'dataset.json'} lists these training cases more than once: {', '.join(double)}."
        )
    missing = [name for name in listed if name not in by_name]
    if missing:
        raise DatasetError(
            f"{folder / 'dataset.json'} lists {len(missing)} training cases without images in {folder / 'imagesTr'}: "
            f"{', '.join(missing[:10])}."
        )
    return [by_name[name] for name in sorted(listed)]
