"""The layouts of nnU-Net v1 and v2, and which layout a dataset folder has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_builtin.datasets.conversion.decathlon import read_decathlon
from nnunet_builtin.datasets.conversion.folders import find_folders
from nnunet_builtin.datasets.conversion.source import FileLabels, Source, by_name, writers_of
from nnunet_builtin.datasets.naming import by_channel
from nnunet_builtin.datasets.reading import (
    FILE,
    channel_names,
    find_label_ending,
    image_ending,
    label_names,
    list_cases,
    read_document,
)
from nnunet_core.data.dataset import CaseFiles, Dataset
from nnunet_core.data.folders import list_files
from nnunet_core.errors import DatasetError, MissingFolderError, listed
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import find_reader, open_dataset

_FOLDERS = "pass folders of images and labels with --images DIR --labels DIR"
_RULE = f"A dataset folder has dataset.json, imagesTr and labelsTr; without them, {_FOLDERS}."


def find_source(folder: Path, registry: Registry) -> Source:
    """Describe a dataset folder: the layout of the decathlon, of v1 or of v2, told by its
    structure; or of a plugin's reader.

    Args:
        folder: Holds dataset.json, imagesTr and labelsTr.
        registry: Image formats.

    Raises:
        MissingFolderError: There is no such folder.
        DatasetError: The folder could be none or more than one of these, or breaks its own
            dataset.json.
        ImageError: An image that must be read for this cannot be read.
    """
    if not folder.is_dir():
        raise MissingFolderError(folder)
    path = folder / FILE
    if not path.is_file():
        return _read_other(folder, registry)
    try:
        document = read_document(path)
    except DatasetError as error:
        raise DatasetError(f"{error} {_RULE}") from error
    kind = _kind(folder, document, registry)
    if kind == "decathlon":
        return read_decathlon(folder, document, registry)
    found = _read_layout(open_dataset(str(folder), folder, registry), kind, registry)
    return replace(found, further={**document, **found.further})


def find_renumbered(folder: Path, registry: Registry, workers: Workers) -> Source:
    """Describe a dataset folder whose label values are not consecutive: they will be, and keep
    their names.

    Raises:
        DatasetError: dataset.json is no good, has regions, or files of cases are missing.
    """
    path = folder / FILE
    document = read_document(path)
    names = label_names(document, path)
    if regions := [name for name, value in names.items() if not str(value).isdecimal()]:
        raise DatasetError(f"{path}: only single values can be renumbered; got {listed(regions)}.")
    given = {name: int(value) for name, value in names.items() if int(value)}
    channels = channel_names(document, path)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    found = find_folders(images, labels, registry, channels, given, True, workers)
    return replace(found, further={**document, **found.further})


def _read_other(folder: Path, registry: Registry) -> Source:
    """Describe a folder that another reader than ours reads."""
    try:
        dataset = open_dataset(str(folder), folder, registry)
    except DatasetError as error:
        raise DatasetError(f"{folder / FILE} does not exist. {error} {_RULE}") from error
    return _read_layout(dataset, f"folder with {find_reader(folder, registry).looks_for}", registry)


def _kind(folder: Path, document: Mapping[str, Any], registry: Registry) -> str:
    """Return the layout that file names and dataset.json show."""
    if "dataset" in document:
        return "v2"
    ending = image_ending(document)
    images = list_files(folder / "imagesTr", ending)
    labels = list_files(folder / "labelsTr", find_label_ending(folder, document, registry))
    if not images:
        raise DatasetError(
            f"{folder / 'imagesTr'} holds no image ending in '{ending}'. For other folders, "
            f"{_FOLDERS}."
        )
    whole = any(name in labels for name in images)
    split = any(case in labels for case in by_channel(images))
    v1, v2 = "modality" in document, "channel_names" in document
    path = folder / FILE
    if whole and split:
        raise DatasetError(
            f"{folder} could be of the decathlon layout (image and label have one name) or have "
            "one file per channel (CASE_0000): labelsTr has files for both. Rename or remove one "
            f"kind, or {_FOLDERS}."
        )
    if not whole and not split:
        raise DatasetError(
            f"{folder} is of no known layout: labelsTr holds no CASE of an image CASE_0000{ending} "
            f"(v1, v2) or CASE{ending} (decathlon). Images: {', '.join(sorted(images)[:3])}. "
            f"Rename the labels, or {_FOLDERS}."
        )
    if v1 and v2:
        raise DatasetError(
            f"{path} has 'modality' (v1) and 'channel_names' (v2): remove the one that is not "
            "right."
        )
    if not v1 and not v2:
        raise DatasetError(
            f"{path} has neither 'modality' (v1) nor 'channel_names' (v2): {{'0': 'CT'}} names a "
            "channel."
        )
    return "decathlon" if whole else "v1" if v1 else "v2"


def _read_layout(dataset: Dataset, kind: str, registry: Registry) -> Source:
    order = dataset.labels.region_order
    return Source(
        kind=kind,
        inputs=(dataset.folder,),
        channels=dataset.channels,
        labels=by_name(dataset.labels),
        training=dataset.training,
        test=_test_cases(dataset),
        image_ending=dataset.ending,
        label_ending=dataset.label_ending,
        image_format=dataset.image_format,
        label_reader=FileLabels(dataset.label_format),
        writers=writers_of(registry, dataset.ending),
        further={**dataset.document, **({"regions_class_order": list(order)} if order else {})},
    )


def _test_cases(dataset: Dataset) -> tuple[CaseFiles, ...]:
    folder = dataset.folder / "imagesTs"
    if not list_files(folder, dataset.ending):
        return ()
    labels = list_files(dataset.folder / "labelsTs", dataset.label_ending)
    cases = list_cases(folder, dataset.ending, len(dataset.channels), dataset.image_format)
    return tuple(replace(case, label=labels.get(case.name)) for case in cases)
