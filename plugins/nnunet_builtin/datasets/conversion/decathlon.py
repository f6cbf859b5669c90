"""The decathlon layout: one file per case, with the channels as a fourth dimension."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunet_builtin.datasets.conversion.source import FileLabels, Source, by_name, writers_of
from nnunet_builtin.datasets.naming import entry_names
from nnunet_builtin.datasets.reading import read_labels
from nnunet_core.data.dataset import CaseFiles
from nnunet_core.data.folders import list_files
from nnunet_core.errors import DatasetError, counted, listed
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build
from nnunet_core.stages.formats import find_format

ENDING = ".nii.gz"
#: The format of images: NIfTI of three dimensions, or of four with the channel as the last one.
STACKED = "nifti_4d"


def read_decathlon(folder: Path, document: Mapping[str, Any], registry: Registry) -> Source:
    """Describe a dataset of the decathlon layout (spec: dataset, section 3). Hidden files are left
    out.

    Args:
        folder: Holds dataset.json, imagesTr, labelsTr and perhaps imagesTs, labelsTs.
        document: The parsed dataset.json.
        registry: Image formats.

    Raises:
        DatasetError: Images, labels and dataset.json do not fit together.
    """
    path = folder / "dataset.json"
    modality = document.get("modality", document.get("channel_names"))
    if not isinstance(modality, dict) or not modality:
        raise DatasetError(
            f"{path}: 'modality' is {modality!r}; it maps '0' to the first channel's name."
        )
    images, labels = _files(folder / "imagesTr"), _files(folder / "labelsTr")
    training = _listed(images, document, path)
    if missing := [name for name in training if name not in labels]:
        raise DatasetError(
            f"{folder / 'labelsTr'} lacks the labels of {counted(len(missing), 'image')} of "
            f"imagesTr: {listed(missing)}."
        )
    test_labels = _files(folder / "labelsTs")
    return Source(
        kind="decathlon",
        inputs=(folder,),
        channels=tuple(
            str(name) for _, name in sorted(modality.items(), key=lambda item: int(item[0]))
        ),
        labels=by_name(read_labels(document, path)),
        training=tuple(CaseFiles(n, (images[n],), labels[n]) for n in training),
        test=tuple(
            CaseFiles(name, (image,), test_labels.get(name))
            for name, image in _files(folder / "imagesTs").items()
        ),
        image_ending=ENDING,
        label_ending=ENDING,
        image_format=build(registry.resolve("image_format", STACKED)),
        label_reader=FileLabels(find_format(ENDING, registry)),
        writers=writers_of(registry, ENDING),
        further=document,
    )


def _files(folder: Path) -> dict[str, Path]:
    return {name: path for name, path in list_files(folder, ENDING).items() if path.is_file()}


def _listed(found: Iterable[str], document: Mapping[str, Any], path: Path) -> list[str]:
    """Return the cases that dataset.json lists, or all when it lists none."""
    listed = sorted(set(entry_names(document.get("training"), ENDING)))
    if absent := [name for name in listed if name not in found]:
        raise DatasetError(
            f"{path} lists {len(absent)} training cases that are not in imagesTr: "
            f"{', '.join(absent[:10])}. Add the files or remove the entries."
        )
    return listed or list(found)
