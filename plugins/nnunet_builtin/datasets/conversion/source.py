"""What a conversion reads: cases, how their files are read, and what channels and labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_core.data.dataset import CaseFiles
from nnunet_core.data.images import Geometry, Image, ImageFormat
from nnunet_core.data.labels import Labels, label_type
from nnunet_core.errors import DatasetError, ImageError, counted
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.formats import find_format

#: What dataset.json may hold for a label: its value, or the values of a region.
LabelValues = Mapping[str, "int | list[int]"]

#: Kind of source -> how it is described to people.
KINDS = {
    "v1": "nnU-Net v1 layout",
    "v2": "nnU-Net v2 layout",
    "decathlon": "decathlon layout (one file per case)",
    "folders": "folders of images and labels",
    "dicom": "DICOM series",
}


class LabelReader(Protocol):
    """Reads the label file of a case."""

    def read(self, path: Path, geometry: Geometry | None) -> Image:
        """Read a label to integers (1, Z, Y, X); `geometry` is that of the image, None where nobody
        has read it.
        """
        ...


@dataclass(frozen=True)
class Source:
    """A dataset to convert.

    Attributes:
        kind: A key of KINDS, or what the reader of the folder looks for.
        inputs: Folders and files that are read and never changed.
        channels: Channel names.
        labels: {name: value or values}, with the background.
        training, test: Cases.
        image_ending, label_ending: With the leading dot; empty for folders of DICOM files.
        image_format: Reads images.
        label_reader: Reads labels.
        writers: {ending: what writes files of it}, see `writers_of`.
        further: Other fields of dataset.json to keep.
    """

    kind: str
    inputs: tuple[Path, ...]
    channels: tuple[str, ...]
    labels: LabelValues
    training: tuple[CaseFiles, ...]
    test: tuple[CaseFiles, ...]
    image_ending: str
    label_ending: str
    image_format: ImageFormat
    label_reader: LabelReader
    writers: Mapping[str, ImageFormat]
    further: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """Return one line for people."""
        test = f", {counted(len(self.test), 'test case')}" if self.test else ""
        names = [name for name, value in self.labels.items() if value != 0]
        kind = KINDS.get(self.kind, self.kind)
        return (
            f"{kind}: {counted(len(self.training), 'training case')}{test}; channels: "
            f"{', '.join(self.channels)}; labels: {', '.join(names) or 'none'}"
        )


def by_name(labels: Labels) -> dict[str, int | list[int]]:
    """Return `labels` of a dataset.json of v2: {name: value, or values of a region}, background
    first, ignore label last.
    """
    regions = {n: list(v) for n, v in zip(labels.region_names, labels.regions, strict=True)}
    single = {labels.names[value]: value for value in labels.foreground}
    ignore = {} if labels.ignore is None else {"ignore": labels.ignore}
    return {labels.names[0]: 0, **(regions or single), **ignore}


def writers_of(registry: Registry, ending: str) -> dict[str, ImageFormat]:
    """Return {ending: format} of what a conversion may write: NIfTI, lossless pictures, and the
    ending of the source.
    """
    endings = {".nii.gz", ".png", ".tif", ending} - {""}
    return {each: find_format(each, registry) for each in endings}


@dataclass(frozen=True)
class FileLabels:
    """Reads label files of any image format.

    Attributes:
        image_format: Reads the files.
        mapping: {value of the file: value of the result}; empty where they are the same.
    """

    image_format: ImageFormat
    mapping: Mapping[int, int] = field(default_factory=dict)

    @property
    def unchanged(self) -> bool:
        """Whether values stay as they are."""
        return not self.mapping

    def read(self, path: Path, geometry: Geometry | None) -> Image:
        """Read a label file; it has a geometry of its own.

        Raises:
            ImageError: Unreadable file, or more than one channel.
            DatasetError: Values that are no whole numbers from 0 to 65535.
        """
        del geometry
        image = self.image_format.read(path)
        values = whole_values(image, path)
        array = image.array.astype(label_type(int(values[-1])))
        if self.mapping:
            table = np.zeros(int(values[-1]) + 1, array.dtype)
            for value in values:
                table[value] = self.mapping[int(value)]
            array = table[array]
        return Image(array, image.geometry)


def whole_values(image: Image, path: Path) -> np.ndarray:
    """Return the sorted values of a label image.

    Raises:
        ImageError: More than one channel.
        DatasetError: Values that are no whole numbers from 0 to 65535.
    """
    if image.array.shape[0] != 1:
        raise ImageError(f"The label {path} has {image.array.shape[0]} channels; a label has one.")
    values = np.unique(image.array)
    if (
        not np.all(np.isfinite(values))
        or np.any(values != np.round(values))
        or values[0] < 0
        or values[-1] > 65535
    ):
        raise DatasetError(
            f"The label {path} holds values from {values[0]} to {values[-1]}; labels are whole "
            "numbers from 0 to 65535."
        )
    return values.astype(np.int64)
