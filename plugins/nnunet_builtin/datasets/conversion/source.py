"""What a conversion reads: cases, how their files are read, and what channels and labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_builtin.dicom.segmentation import read_segmentation, segment_names
from nnunet_core.data.images import Geometry, Image, ImageFormat
from nnunet_core.data.labels import label_type
from nnunet_core.errors import DatasetError, ImageError

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

    @property
    def unchanged(self) -> bool:
        """Whether the file holds the values of the result, so that it may be copied."""
        ...

    def read(self, path: Path, geometry: Geometry | None) -> Image:
        """Read a label to integers (1, Z, Y, X); `geometry` is that of the image, None where nobody has read it."""
        ...


@dataclass(frozen=True)
class SourceCase:
    """The files of one case.

    Attributes:
        name: Case name.
        images: Files in channel order; or one file with every channel.
        label: Label file; None for test cases without one.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class Source:
    """A dataset to convert.

    Attributes:
        kind: A key of KINDS.
        inputs: Folders and files that are read and never changed.
        channels: Channel names.
        labels: {name: value or values}, with the background.
        training, test: Cases.
        image_ending, label_ending: With the leading dot; empty for folders of DICOM files.
        image_format: Reads images.
        label_reader: Reads labels.
        further: Other fields of dataset.json to keep.
    """

    kind: str
    inputs: tuple[Path, ...]
    channels: tuple[str, ...]
    labels: LabelValues
    training: tuple[SourceCase, ...]
    test: tuple[SourceCase, ...]
    image_ending: str
    label_ending: str
    image_format: ImageFormat
    label_reader: LabelReader
    further: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """Return one line for people."""
        test = f", {len(self.test)} test cases" if self.test else ""
        names = [name for name, value in self.labels.items() if value != 0]
        return (
            f"{KINDS[self.kind]}: {len(self.training)} training cases{test}; channels: {', '.join(self.channels)}; "
            f"labels: {', '.join(names) or 'none'}"
        )


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
            f"The label {path} holds values from {values[0]} to {values[-1]}; labels are whole numbers from 0 to 65535."
        )
    return values.astype(np.int64)


@dataclass(frozen=True)
class SegmentationLabels:
    """Reads DICOM SEG files.

    Attributes:
        values: {segment name: label value}.
    """

    values: Mapping[str, int]
    unchanged: bool = False

    def read(self, path: Path, geometry: Geometry | None) -> Image:
        """Read a DICOM SEG file onto the grid of its image; see `dicom_seg.read_segmentation`."""
        if geometry is None:
            raise ImageError(
                f"{path} is DICOM SEG, which is placed on the grid of its image; there is no image."
            )
        numbers = {number: self.values[name] for number, name in segment_names(path).items()}
        return Image(read_segmentation(path, geometry, numbers)[None], geometry)
