"""The layouts of nnU-Net v1 and v2, and which layout a dataset folder has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_builtin.datasets.conversion.decathlon import label_values, read_decathlon
from nnunet_builtin.datasets.conversion.source import FileLabels, Source, SourceCase
from nnunet_core.data.dataset import Dataset
from nnunet_core.errors import DatasetError, StorageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.store.raw import find_label_ending, open_dataset

_CHANNEL = re.compile(r"(?P<case>.+)_\d{4}")
_FOLDERS = "pass folders of images and labels with --images DIR --labels DIR"


def find_source(folder: Path, registry: Registry) -> Source:
    """Describe a dataset folder: the layout of the decathlon, of v1 or of v2, told by its structure.

    Args:
        folder: Holds dataset.json, imagesTr and labelsTr.
        registry: Image formats.

    Raises:
        DatasetError: The folder could be none or more than one of these, or breaks its own dataset.json.
        ImageError: An image that must be read for this cannot be read.
    """
    document = _document(folder)
    kind = _kind(folder, document, registry)
    if kind == "decathlon":
        return read_decathlon(folder, document)
    return _read_layout(open_dataset(str(folder), folder, registry), kind)


def _document(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DatasetError(f"The folder {folder} does not exist.")
    try:
        document = files.read_json(folder / "dataset.json")
    except StorageError as error:
        raise DatasetError(
            f"{error} A dataset folder has dataset.json, imagesTr and labelsTr; without them, {_FOLDERS}."
        ) from error
    if not isinstance(document, dict):
        raise DatasetError(
            f"{folder / 'dataset.json'} holds a {type(document).__name__}; it must hold an object."
        )
    return document


def _kind(folder: Path, document: Mapping[str, Any], registry: Registry) -> str:
    """Return the layout that file names and dataset.json show."""
    ending = str(document.get("file_ending", ".nii.gz"))
    images = _stems(folder / "imagesTr", ending)
    labels = _stems(folder / "labelsTr", find_label_ending(folder, document, registry))
    if not images:
        raise DatasetError(
            f"{folder / 'imagesTr'} holds no image ending in '{ending}'. For other folders, {_FOLDERS}."
        )
    whole = any(name in labels for name in images)
    by_channel = any(
        (match := _CHANNEL.fullmatch(name)) and match["case"] in labels for name in images
    )
    v1, v2 = "modality" in document, "channel_names" in document
    path = folder / "dataset.json"
    if whole and by_channel:
        raise DatasetError(
            f"{folder} could be of the decathlon layout (image and label have one name) or have one file per channel "
            f"(CASE_0000): labelsTr has files for both. Rename or remove one kind, or {_FOLDERS}."
        )
    if not whole and not by_channel:
        raise DatasetError(
            f"{folder} is of no known layout: labelsTr holds no CASE of an image CASE_0000{ending} (v1, v2) or "
            f"CASE{ending} (decathlon). Images: {', '.join(sorted(images)[:3])}. Rename the labels, or {_FOLDERS}."
        )
    if v1 and v2:
        raise DatasetError(
            f"{path} has 'modality' (v1) and 'channel_names' (v2): remove the one that is not right."
        )
    if not v1 and not v2:
        raise DatasetError(
            f"{path} has neither 'modality' (v1) nor 'channel_names' (v2): {{'0': 'CT'}} names a channel."
        )
    return "decathlon" if whole else "v1" if v1 else "v2"


def _stems(folder: Path, ending: str) -> set[str]:
    if not folder.is_dir():
        return set()
    names = (path.name for path in folder.iterdir() if not path.name.startswith("."))
    return {name.removesuffix(ending) for name in names if name.endswith(ending)}


def _read_layout(dataset: Dataset, kind: str) -> Source:
    return Source(
        kind=kind,
        inputs=(dataset.folder,),
        channels=dataset.channels,
        labels=label_values(dataset.document, dataset.folder / "dataset.json"),
        training=tuple(SourceCase(case.name, case.images, case.label) for case in dataset.training),
        test=_test_cases(dataset),
        image_ending=dataset.ending,
        label_ending=dataset.label_ending,
        image_format=dataset.image_format,
        label_reader=FileLabels(dataset.label_format),
        further=dataset.document,
    )


def _test_cases(dataset: Dataset) -> tuple[SourceCase, ...]:
    folder, labels = dataset.folder / "imagesTs", dataset.folder / "labelsTs"
    if not _stems(folder, dataset.ending):
        return ()
    labelled = _stems(labels, dataset.label_ending)
    return tuple(
        SourceCase(
            case.name,
            case.images,
            labels / f"{case.name}{dataset.label_ending}" if case.name in labelled else None,
        )
        for case in dataset.find_cases(folder)
    )
