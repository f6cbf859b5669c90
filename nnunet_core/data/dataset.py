"""A raw dataset in memory: its cases, and how they are read and checked."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.data.cases import Case
from nnunet_core.data.images import (
    DetachedFormat,
    Image,
    ImageFormat,
    check_finite,
    stack_channels,
)
from nnunet_core.data.labels import Labels
from nnunet_core.data.meaning import LabelCodes
from nnunet_core.data.transparency import without_alpha
from nnunet_core.errors import DatasetError, ImageError, counted
from nnunet_core.runtime import files
from nnunet_core.runtime.collecting import collector_rests

# of an image while it is loaded or resampled: as it was, as it will be, and between
_BYTES_PER_VALUE = 12
_BYTES_PER_VOXEL = 8  # of label and masks


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        name: Case name.
        images: One file per channel, in channel order.
        label: Label file, or None for cases to predict.
        metadata: What the dataset says of the case, JSON values.
        problem: Of a case to predict, why it cannot be: channels are missing; loading it raises
            that. Its images are those that are there.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file: the images in channel order, then the label."""
        return self.images if self.label is None else (*self.images, self.label)


@dataclass(frozen=True)
class DatasetContent:
    """What a reader finds in a dataset folder (contracts.DatasetReader).

    Attributes:
        channels: Channel names, by channel index.
        labels: What label values mean.
        training: Training cases, each with a label.
        ending: Of image files, with the leading dot.
        label_ending: Of label files and predictions; empty is that of the images.
        image_format, label_format: References of components, where the folder names them; None goes
            by the ending.
        document: What else the folder says, JSON values: the parsed dataset.json. Part of the
            dataset's identity.
        original_values: {value: the one that it was renumbered from}; empty where none was.
        tolerances: {label or region: mm within which two surfaces count as one}, where the folder
            says it; no part of the dataset's identity.
    """

    channels: tuple[str, ...]
    labels: Labels
    training: tuple[CaseFiles, ...]
    ending: str = ".nii.gz"
    label_ending: str = ""
    image_format: str | None = None
    label_format: str | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    original_values: Mapping[int, int] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A raw dataset on disk.

    Attributes:
        folder: Holds its files.
        name: Folder name, for example `Task004_Hippocampus`.
        channels: Channel names, by channel index.
        labels: What label values mean.
        ending: Of image files, with the leading dot.
        image_format: Reads them.
        label_ending: Of label files and predictions.
        label_format: Reads and writes them.
        training: Training cases, sorted by name.
        document: What identifies it beside its files, see `DatasetContent`.
        digests: Content digests of its files.
        format_names: References of image format and label format, where the dataset names them.
        original_values: {value: the one that it was renumbered from}; empty where none was.
        codes: {name of a label: what it is in codes of a terminology}, of those that have any.
        tolerances: {label or region: mm within which two surfaces count as one}.
    """

    folder: Path
    name: str
    channels: tuple[str, ...]
    labels: Labels
    ending: str
    image_format: ImageFormat
    label_ending: str
    label_format: ImageFormat
    training: tuple[CaseFiles, ...]
    document: Mapping[str, Any]
    digests: files.Digests = field(default_factory=files.Digests, compare=False)
    format_names: tuple[str | None, str | None] = (None, None)
    original_values: Mapping[int, int] = field(default_factory=dict)
    codes: Mapping[str, LabelCodes] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the training cases, sorted."""
        return tuple(case.name for case in self.training)

    def case(self, name: str) -> CaseFiles:
        """Return the files of a training case by name."""
        return self._named[name]

    @functools.cached_property
    def _named(self) -> dict[str, CaseFiles]:
        return {case.name: case for case in self.training}

    def load(self, case: CaseFiles) -> Case:
        """Read one case and check that it can be used.

        Raises:
            ImageError: A file is missing or unreadable, channels or label do not lie on one grid,
                or a voxel is NaN.
            DatasetError: The label holds values that dataset.json does not declare, or files of the
                case are missing.
        """
        if case.problem:
            raise DatasetError(case.problem)
        image = stack_channels([self.image_format.read(path) for path in case.images], case.images)
        image = without_alpha(image, len(self.channels), case.images[0])
        if image.array.shape[0] != len(self.channels):
            raise ImageError(
                f"Case {case.name} has {counted(len(image.array), 'channel')}, dataset.json "
                f"declares {len(self.channels)}: {', '.join(self.channels)}."
            )
        check_finite(image.array, case.images[0])
        label, geometry = None, image.geometry
        if case.label is not None:
            found = self._read_label(case.label, image, case.images[0])
            label = found.array[0].astype(np.int16)
            geometry = geometry.noted(found.geometry, case.label)
        labels = None if label is None else self.labels
        return Case(case.name, image.array, label, geometry, case.metadata, labels)

    def load_label(
        self, path: Path, image: Image | None = None, image_path: Path | None = None
    ) -> np.ndarray:
        """Read a label file to int16 (Z, Y, X), checked against dataset.json and, if given, against
        its image.

        Raises:
            ImageError: Unreadable file, more than one channel, or another grid than the image.
            DatasetError: Values that are no integers or are not declared.
        """
        return self._read_label(path, image, image_path).array[0].astype(np.int16)

    def _read_label(self, path: Path, image: Image | None, image_path: Path | None) -> Image:
        label = self.label_format.read(path)
        if label.array.shape[0] != 1:
            raise ImageError(
                f"The label {path} has {label.array.shape[0]} channels; a label has one."
            )
        if image is not None and (
            details := image.geometry.contrast(label.geometry, "image", "label")
        ):
            details = " ".join((f"{details}.", *image.geometry.notes, *label.geometry.notes))
            raise ImageError(
                f"{image_path} and its label {path} lie on different grids: {details} Resample "
                "the label to its image, or copy the image's geometry if only the header is wrong."
            )
        values = np.unique(label.array)
        unknown = [v.item() for v in values if v.item() not in self.labels.values]
        if unknown:
            raise DatasetError(
                f"The label {path} holds the values {unknown[:10]}, which dataset.json does not "
                f"declare. Declared: {sorted(self.labels.values)}. Correct the file or 'labels' of "
                f"{self.folder / 'dataset.json'}."
            )
        return label

    def slim(self) -> Dataset:
        """Return what loading needs, without the list of cases: cheap to send to another
        process.
        """
        return replace(self, training=(), document={}, digests=files.Digests())

    def memory(self, case: CaseFiles, spacing: Sequence[float] | None = None) -> int:
        """Estimate the bytes that loading a case takes, and resampling it to a spacing (mm), from
        its header.

        It is 0 when the header cannot be read: loading the case will say why.
        """
        try:
            header = self.image_format.header(case.images[0])
        except ImageError:
            return 0
        voxels = float(math.prod(header.shape))
        if spacing is not None:
            voxels *= 1 + max(1.0, math.prod(header.spacing) / math.prod(spacing))
        return int(voxels * (_BYTES_PER_VALUE * len(self.channels) + _BYTES_PER_VOXEL))

    @functools.cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that identify dataset.json and the content of every training
        file.
        """
        inside = f"{self.folder}{os.sep}"  # files may lie elsewhere where dataset.json names them
        contents = {path.removeprefix(inside): found for path, found in self.first_contents.items()}
        return files.digest({"document": self.document, "files": contents})

    @functools.cached_property
    def first_contents(self) -> dict[str, str]:
        """`contents` as they were when they were asked for first: what `digest` is made of."""
        return self.contents()

    @collector_rests()
    def contents(self) -> dict[str, str]:
        """Return {path: 16 hexadecimal digits that identify the content} of every training file;
        each is looked at, and read if its size or times changed.

        Raises:
            ImageError: A file cannot be read.
        """
        paths = [path for case in self.training for path in case.paths]
        try:
            return dict(zip(map(str, paths), self.digests.of(paths, self._parts()), strict=True))
        except OSError as error:
            raise ImageError(f"A file of {self.name} cannot be read: {error}") from error

    def _parts(self) -> list[tuple[Path, ...]]:
        """Return, of each training file, the files beside it that hold its voxels."""
        image_parts, label_parts = map(_parts_by, (self.image_format, self.label_format))
        found: list[tuple[Path, ...]] = []
        for case in self.training:
            found += map(image_parts, case.images)
            if case.label is not None:
                found.append(label_parts(case.label))
        return found


def _parts_by(image_format: ImageFormat) -> Callable[[Path], tuple[Path, ...]]:
    return image_format.parts if isinstance(image_format, DetachedFormat) else lambda _: ()
