"""Prepared cases on disk: blosc2 arrays chunked for patch reads, class locations, and a record that
is written last (see `entries`).

Files of one case: `CASE.images.b2nd`, `CASE.label.b2nd`, `CASE.locations.npz`,
`CASE.array.NAME.b2nd` for each extra array, and `CASE.json`.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from nnunet_core.data.cases import ExtraArray, Like, PreparedCase, PreparedGeometry
from nnunet_core.data.metadata import JsonMapping, json_problem
from nnunet_core.errors import PluginError, StorageError
from nnunet_core.runtime.names import PlainName
from nnunet_core.store.arrays import StoredArray, compress, damaged, open_array
from nnunet_core.store.entries import RECORD, EntryRecord, EntryStore, Known

IMAGES, LABEL, LOCATIONS = ".images.b2nd", ".label.b2nd", ".locations.npz"
_ARRAY = ".array.{}.b2nd"
_ARRAY_NAME = re.compile(r"[a-z0-9_]+")
_TYPES = {  # of extra arrays; the values of a label map are integers
    "image": ("float32", "float16", "int8", "int16", "uint8"),
    "label": ("int8", "int16", "uint8"),
}


class CaseRecord(EntryRecord):
    """The record of one prepared case.

    Attributes:
        geometry: The way back to the original grid.
        extra: What the preprocessor passes on.
        like: {name of an extra array: how it is moved}.
    """

    geometry: PreparedGeometry
    extra: JsonMapping = Field(default_factory=dict)
    like: dict[PlainName, Like] = Field(default_factory=dict)


@dataclass(frozen=True)
class StoredCase:
    """A prepared case that is read in parts.

    Attributes:
        name: Case name.
        images: float32 (C, *spatial_shape).
        label: int8 or int16 (*spatial_shape), -1 outside the non-zero region.
        geometry: The way back to the original grid.
        folder: Of the store.
        extra: What the preprocessor passed on.
        arrays: {name: extra array (K, *spatial_shape)}.
        like: {name: `image` or `label`}, how each of them is moved.
    """

    name: str
    images: StoredArray
    label: StoredArray
    geometry: PreparedGeometry
    folder: Path
    extra: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, StoredArray] = field(default_factory=dict)
    like: Mapping[str, Like] = field(default_factory=dict)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Voxels per axis, permuted axes."""
        return self.label.shape

    @functools.cached_property
    def class_locations(self) -> dict[int, np.ndarray]:
        """{foreground value: int64 (n, 3) voxel coordinates}; read at the first use. Raises
        StorageError.
        """
        path = self.folder / (self.name + LOCATIONS)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {int(value): arrays[value].astype(np.int64) for value in arrays.files}
        except Exception as error:
            raise damaged(path, str(error)) from error


@dataclass(frozen=True)
class PreparedStore(EntryStore):
    """A folder of prepared cases; may be pickled and used by many readers at once.

    Attributes:
        folder: Created by the first write.
        keys: {name: digest of everything that the case was computed from}; a case of another one is
            not opened.
    """

    _record: ClassVar[type[EntryRecord]] = CaseRecord

    def names(self) -> tuple[str, ...]:
        """Return the names of the cases that were written completely, sorted."""
        found = (name for name in self._files() if name.endswith(RECORD))
        return tuple(
            sorted(name.removesuffix(RECORD) for name in found if not name.startswith("."))
        )

    def write(self, case: PreparedCase, key: str, patch_size: Sequence[int]) -> Known:
        """Store a case, in the place of what was there; a crash leaves the case complete or absent.
        Return what `remember` takes.

        Args:
            case: Prepared arrays.
            key: Digest of everything that the case was computed from.
            patch_size: Patches that will be read, voxels; two entries when single slices are read.
                It decides how the arrays are cut, not what they hold.

        Raises:
            StorageError: The disk is full, or the folder cannot be written.
            PluginError: The preprocessor returned arrays of the wrong shape or type, or extra
                values that are no JSON.
        """
        _check(case)
        arrays = {IMAGES: case.images, LABEL: case.label}
        arrays |= {_ARRAY.format(name): extra.array for name, extra in case.arrays.items()}
        contents = {part: compress(array, patch_size) for part, array in arrays.items()}
        contents[LOCATIONS] = _pack_locations(case)
        like = {name: extra.like for name, extra in case.arrays.items()}
        fields = {"key": key, "geometry": case.geometry, "extra": dict(case.extra), "like": like}
        return self._write(case.name, contents, **fields)

    def record(self, name: str) -> CaseRecord:
        """Return what is known of a case without opening its arrays. Raises StorageError."""
        return CaseRecord.read(self._path(name, RECORD))

    def open(self, name: str, verify: bool = False) -> StoredCase:
        """Open a case for reading; it holds its files open until it is forgotten.

        Args:
            name: Case name.
            verify: Read every file and compare its content with the recorded digest; sizes are
                always compared.

        Raises:
            StorageError: The case is not in the store, was prepared anew, or one of its files is
                damaged.
        """
        if not self._path(name, RECORD).is_file():
            raise StorageError(f"Case {name} is not in {self.folder}. Run: nnunet preprocess")
        record = self.record(name)
        if self.keys.get(name, record.key) != record.key:
            raise StorageError(
                f"Case {name} of {self.folder} was prepared anew from other data while this ran. "
                "Run the same command again: it trains anew what depends on the case."
            )
        for file, problem in self._problems(name, record, verify):
            raise damaged(file, problem)
        return StoredCase(
            name,
            images=open_array(self._path(name, IMAGES)),
            label=open_array(self._path(name, LABEL)),
            geometry=record.geometry,
            folder=self.folder,
            extra=record.extra,
            arrays={
                part: open_array(self._path(name, _ARRAY.format(part))) for part in record.like
            },
            like=record.like,
        )


@dataclass(frozen=True)
class LabelStore(EntryStore):
    """A folder of label maps on the grids of prepared cases: what a cascade's first stage found.

    Attributes:
        folder: Created by the first write.
        keys: {name: digest of everything that the label map was computed from}.
    """

    def write(self, name: str, label: np.ndarray, key: str, patch_size: Sequence[int]) -> None:
        """Store an integer label map (*prepared_shape), in the place of what was there. Raises
        StorageError.
        """
        self._write(name, {LABEL: compress(label, patch_size)}, key=key)

    def open(self, name: str) -> StoredArray:
        """Open a label map for reading.

        Raises:
            StorageError: It is not in the store, or damaged.
        """
        path = self._path(name, LABEL)
        if not path.is_file():
            raise StorageError(
                f"{self.folder} has no prediction of case {name}. Train the previous stage's folds "
                "first."
            )
        return open_array(path)


def _pack_locations(case: PreparedCase) -> bytes:
    """Return the content of an npz file, coordinates in the smallest type that holds them."""
    small = np.min_scalar_type(max(case.label.shape))
    arrays: dict[str, Any] = {
        str(value): voxels.astype(small) for value, voxels in case.class_locations.items()
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _check(case: PreparedCase) -> None:
    """Raise PluginError where a preprocessor returned what cannot be stored."""
    images, label, shape = case.images, case.label, tuple(case.geometry.prepared_shape)
    if images.ndim != 4 or not images.shape[1:] == label.shape == shape:
        raise PluginError(
            f"The preprocessor returned images {images.shape}, a label {label.shape} and "
            f"prepared_shape {case.geometry.prepared_shape} for case {case.name}; they must be (C, "
            "*shape), shape and shape."
        )
    if images.dtype != np.float32 or label.dtype not in (np.int8, np.int16):
        raise PluginError(
            f"The preprocessor returned {images.dtype} images and a {label.dtype} label for case "
            f"{case.name}; they must be float32, and int8 or int16."
        )
    for name, extra in case.arrays.items():
        _check_array(case.name, name, extra, shape)
    for what, values in (("extra", case.extra), ("geometry.metadata", case.geometry.metadata)):
        if problem := json_problem(values):
            raise PluginError(
                f"The preprocessor returned {what} for case {case.name} that is no JSON object: "
                f"{problem}."
            )


def _check_array(case: str, name: str, extra: ExtraArray, shape: tuple[int, ...]) -> None:
    who = f"The preprocessor returned for case {case} the extra array '{name}'"
    if not _ARRAY_NAME.fullmatch(name):
        raise PluginError(f"{who}; a name consists of a-z, 0-9 and _.")
    if extra.like not in _TYPES:
        raise PluginError(f"{who} like {extra.like!r}; it must be like 'image' or 'label'.")
    if extra.array.ndim != 4 or extra.array.shape[1:] != shape or not len(extra.array):
        raise PluginError(f"{who} of shape {extra.array.shape}; it must be (K, *{shape}), K >= 1.")
    if extra.array.dtype.name not in _TYPES[extra.like]:
        raise PluginError(
            f"{who} of type {extra.array.dtype}; like '{extra.like}' it must be one of "
            f"{', '.join(_TYPES[extra.like])}."
        )
