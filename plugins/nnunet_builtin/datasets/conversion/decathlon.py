"""The decathlon layout: one file per case, with the channels as a fourth dimension."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_builtin.datasets.conversion.source import FileLabels, Source, SourceCase
from nnunet_builtin.formats import nifti
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry, Header, Image
from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError, ImageError

ENDING = ".nii.gz"


class StackedFormat(SimpleItkFormat):
    """Reads NIfTI files of three dimensions, or of four with the channel as the last one."""

    def header(self, path: Path) -> Header:
        """Read size, spacing and number of channels without the voxels. Raises ImageError."""
        reader = _reader(path)
        if reader.GetDimension() != 4:
            return super().header(path)
        x, y, z, channels = (int(v) for v in reader.GetSize())
        sx, sy, sz, _ = (float(v) for v in reader.GetSpacing())
        return Header((z, y, x), (sz, sy, sx), channels)

    def read(self, path: Path) -> Image:
        """Read one file to (C, Z, Y, X) in its voxel type.

        Raises:
            ImageError: Unreadable, damaged, with NaN, neither 3D nor 4D, or several values per voxel.
        """
        if dimensions(path) != 4:
            return super().read(path)
        nifti.read(path)  # checks what the reader does not
        image = sitk.ReadImage(str(path))
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise ImageError(
                f"The image {path} has 4 dimensions and several values per voxel; it may have one of these."
            )
        return Image(sitk.GetArrayFromImage(image), _geometry(image))


def dimensions(path: Path) -> int:
    """Return the number of dimensions of an image file, 3 or 4.

    Raises:
        ImageError: Unreadable, or another number of dimensions.
    """
    found = int(_reader(path).GetDimension())
    if found not in (3, 4):
        raise ImageError(
            f"The image {path} has {found} dimensions; it may have 3, or 4 with the channel as last one."
        )
    return found


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(
            f"The image {path} cannot be read: it is damaged or no NIfTI file. Replace it."
        ) from error
    return reader


def read_decathlon(folder: Path, document: Mapping[str, Any]) -> Source:
    """Describe a dataset of the decathlon layout (spec: dataset, section 3). Hidden files are left out.

    Args:
        folder: Holds dataset.json, imagesTr, labelsTr and perhaps imagesTs, labelsTs.
        document: The parsed dataset.json.

    Raises:
        DatasetError: Images, labels and dataset.json do not fit together.
    """
    path = folder / "dataset.json"
    modality = document.get("modality", document.get("channel_names"))
    if not isinstance(modality, dict) or not modality:
        raise DatasetError(
            f"{path}: 'modality' is {modality!r}; it maps '0' to the first channel's name."
        )
    training = _listed(_names(folder / "imagesTr"), document, path)
    labels = set(_names(folder / "labelsTr"))
    if missing := [name for name in training if name not in labels]:
        raise DatasetError(
            f"{folder / 'labelsTr'} lacks the labels of {len(missing)} images of imagesTr: {', '.join(missing[:10])}."
        )
    test_labels = set(_names(folder / "labelsTs"))
    return Source(
        kind="decathlon",
        inputs=(folder,),
        channels=tuple(
            str(name) for _, name in sorted(modality.items(), key=lambda item: int(item[0]))
        ),
        labels=label_values(document, path),
        training=tuple(_case(folder, "Tr", name, True) for name in training),
        test=tuple(
            _case(folder, "Ts", name, name in test_labels) for name in _names(folder / "imagesTs")
        ),
        image_ending=ENDING,
        label_ending=ENDING,
        image_format=StackedFormat(),
        label_reader=FileLabels(SimpleItkFormat()),
        further=document,
    )


def label_values(document: Mapping[str, Any], path: Path) -> dict[str, int | list[int]]:
    """Return `labels` of a dataset.json of either layout as {name: value or values of a region}.

    Raises:
        DatasetError: As `Labels.from_dataset_json`.
    """
    Labels.from_dataset_json(document, path)
    raw = document["labels"]
    if all(str(key).lstrip("-").isdigit() for key in raw):
        return {str(name): int(value) for value, name in raw.items()}
    return dict(raw)


def _case(folder: Path, part: str, name: str, labelled: bool) -> SourceCase:
    label = folder / f"labels{part}" / f"{name}{ENDING}" if labelled else None
    return SourceCase(name, (folder / f"images{part}" / f"{name}{ENDING}",), label)


def _names(folder: Path) -> list[str]:
    """Return the names of the files of a folder without ending; empty when there is no folder."""
    if not folder.is_dir():
        return []
    found = (
        path.name for path in folder.iterdir() if path.is_file() and path.name.endswith(ENDING)
    )
    return sorted(name.removesuffix(ENDING) for name in found if not name.startswith("."))


def _listed(found: Sequence[str], document: Mapping[str, Any], path: Path) -> list[str]:
    """Return the cases that dataset.json lists, or all when it lists none."""
    entries = [e.get("image") if isinstance(e, dict) else e for e in document.get("training") or ()]
    listed = sorted({re.split(r"[\\/]", str(entry))[-1].removesuffix(ENDING) for entry in entries})
    if absent := [name for name in listed if name not in found]:
        raise DatasetError(
            f"{path} lists {len(absent)} training cases that are not in imagesTr: {', '.join(absent[:10])}. "
            "Add the files or remove the entries."
        )
    return listed or list(found)


def _geometry(image: sitk.Image) -> Geometry:
    """Return the geometry of one channel of a 4D image: without the last axis."""
    x, y, z = (int(v) for v in image.GetSize()[:3])
    sx, sy, sz = (float(v) for v in image.GetSpacing()[:3])
    ox, oy, oz = (float(v) for v in image.GetOrigin()[:3])
    direction = np.reshape(image.GetDirection(), (4, 4))[:3, :3]
    return Geometry(
        (z, y, x), (sz, sy, sx), (ox, oy, oz), tuple(float(v) for v in direction.ravel())
    )
