"""Prepared cases on disk: blosc2 arrays chunked for patch reads, class locations, and a record that is written last.

Files of one case: `CASE.images.b2nd`, `CASE.label.b2nd`, `CASE.locations.npz` and `CASE.json`. A case exists when its
record does and its files have the recorded sizes; what an interrupted writer leaves is not trusted, and replaced by the
next one.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import blosc2
import numpy as np
from pydantic import BaseModel, ConfigDict

from nnunet_core.data.cases import PreparedGeometry
from nnunet_core.errors import PluginError, StorageError
from nnunet_core.runtime import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nnunet_core.data.cases import PreparedCase

IMAGES, LABEL, LOCATIONS, RECORD = ".images.b2nd", ".label.b2nd", ".locations.npz", ".json"
_PARTS = (IMAGES, LABEL, LOCATIONS)
_BLOCK = {3: (20, 32, 64), 2: (1, 128, 128)}  # voxels, by the number of axes of a patch
_BLOCKS_PER_CHUNK = 2  # per axis


class FileRecord(BaseModel):
    """Size in bytes and content digest of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    digest: str


class CaseRecord(files.Document):
    """The record of one prepared case.

    Attributes:
        name: Case name.
        key: Digest of everything that the case was computed from.
        geometry: The way back to the original grid.
        files: {file name: size and digest}.
    """

    name: str
    key: str
    geometry: PreparedGeometry
    files: dict[str, FileRecord]


class StoredArray:
    """An array on disk: slicing it reads that part, in one thread.

    Attributes:
        shape, dtype: Of the array.
    """

    def __init__(self, array: Any, path: Path) -> None:
        self._array = array
        self._path = path
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype = array.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a part, with NumPy's basic slices.

        Raises:
            StorageError: The file is damaged.
        """
        try:
            return self._array[index]
        except (RuntimeError, MemoryError) as error:
            raise _damaged(self._path, str(error)) from error


@dataclass(frozen=True)
class StoredCase:
    """A prepared case that is read in parts.

    Attributes:
        name: Case name.
        images: float32 (C, *spatial_shape).
        label: int8 or int16 (*spatial_shape), -1 outside the non-zero region.
        geometry: The way back to the original grid.
        folder: Of the store.
    """

    name: str
    images: StoredArray
    label: StoredArray
    geometry: PreparedGeometry
    folder: Path

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Voxels per axis, permuted axes."""
        return self.label.shape

    @functools.cached_property
    def class_locations(self) -> dict[int, np.ndarray]:
        """{foreground value: int64 (n, 3) voxel coordinates}; read at the first use. Raises StorageError."""
        path = self.folder / (self.name + LOCATIONS)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {int(value): arrays[value].astype(np.int64) for value in arrays.files}
        except Exception as error:
            raise _damaged(path, str(error)) from error


@dataclass(frozen=True)
class PreparedStore:
    """A folder of prepared cases; may be pickled and used by many readers at once.

    Attributes:
        folder: Created by the first write.
        keys: {name: digest of everything that the case was computed from}; a case of another one is not opened.
    """

    folder: Path
    keys: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return the names of the cases that were written completely, sorted."""
        if not self.folder.is_dir():
            return ()
        found = (path.name for path in self.folder.iterdir() if path.name.endswith(RECORD))
        return tuple(
            sorted(name.removesuffix(RECORD) for name in found if not name.startswith("."))
        )

    def write(self, case: PreparedCase, key: str, patch_size: Sequence[int]) -> None:
        """Store a case, in the place of what was there; a crash leaves the case complete or absent.

        Args:
            case: Prepared arrays.
            key: Digest of everything that the case was computed from.
            patch_size: Patches that will be read, voxels; two entries when single slices are read. It decides how the
                arrays are cut, not what they hold.

        Raises:
            StorageError: The disk is full, or the folder cannot be written.
            PluginError: The preprocessor returned arrays of the wrong shape or type.
        """
        _check(case)
        self.remove(case.name)
        contents = {
            IMAGES: _compress(case.images, patch_size, blosc2.Codec.LZ4HC),
            LABEL: _compress(case.label, patch_size, blosc2.Codec.ZSTD),
            LOCATIONS: _pack_locations(case),
        }
        for part, content in contents.items():
            files.write_bytes(self._path(case.name, part), content)
        records = {
            case.name + part: FileRecord(
                size=len(content), digest=hashlib.blake2b(content, digest_size=8).hexdigest()
            )
            for part, content in contents.items()
        }
        record = CaseRecord(name=case.name, key=key, geometry=case.geometry, files=records)
        record.write(self._path(case.name, RECORD))

    def is_current(self, name: str, key: str, verify: bool = False) -> bool:
        """Return whether the case is complete and was computed from the inputs of `key`; `verify` as in `open`."""
        try:
            record = CaseRecord.read(self._path(name, RECORD))
        except StorageError:
            return False
        return record.key == key and not any(self._problems(record, verify))

    def key(self, name: str) -> str:
        """Return the digest of everything that a case was computed from. Raises StorageError."""
        return CaseRecord.read(self._path(name, RECORD)).key

    def open(self, name: str, verify: bool = False) -> StoredCase:
        """Open a case for reading; it holds two open files until it is forgotten.

        Args:
            name: Case name.
            verify: Read every file and compare its content with the recorded digest; sizes are always compared.

        Raises:
            StorageError: The case is not in the store, was prepared anew, or one of its files is damaged.
        """
        path = self._path(name, RECORD)
        if not path.is_file():
            raise StorageError(f"Case {name} is not in {self.folder}. Run: nnunet preprocess")
        record = CaseRecord.read(path)
        if self.keys.get(name, record.key) != record.key:
            raise StorageError(
                f"Case {name} of {self.folder} was prepared anew from other data while this ran. Run the same command again: "
                "it trains anew what depends on the case."
            )
        for file, problem in self._problems(record, verify):
            raise _damaged(file, problem)
        images, label = open_array(self._path(name, IMAGES)), open_array(self._path(name, LABEL))
        return StoredCase(name, images, label, record.geometry, self.folder)

    def remove(self, name: str) -> None:
        """Delete a case and what interrupted writers left of it; nothing happens if there is none."""
        for part in (RECORD, *_PARTS):  # the record first: without it the other files mean nothing
            self._path(name, part).unlink(missing_ok=True)
            for temporary in self.folder.glob(f".{glob.escape(name + part)}.*.tmp"):
                temporary.unlink(missing_ok=True)

    def _path(self, name: str, part: str) -> Path:
        return self.folder / (name + part)

    def _problems(self, record: CaseRecord, verify: bool = False) -> list[tuple[Path, str]]:
        """Return (file, what is wrong with it) of the files of a case."""
        problems = []
        for part in _PARTS:
            path, expected = self._path(record.name, part), record.files.get(record.name + part)
            if expected is None:
                problems.append((self._path(record.name, RECORD), f"it does not list {path.name}"))
            elif not path.is_file():
                problems.append((path, "it does not exist"))
            elif path.stat().st_size != expected.size:
                problems.append(
                    (path, f"it has {path.stat().st_size} bytes instead of {expected.size}")
                )
            elif verify and files.file_digest(path) != expected.digest:
                problems.append((path, "its content is not what was written"))
        return problems


class LabelRecord(files.Document):
    """The record of one stored label map.

    Attributes:
        key: Digest of everything that it was computed from.
        file: Size and digest of its array.
    """

    key: str
    file: FileRecord


@dataclass(frozen=True)
class LabelStore:
    """A folder of label maps on the grids of prepared cases: what a cascade's first stage found.

    Attributes:
        folder: Created by the first write.
    """

    folder: Path

    def write(self, name: str, label: np.ndarray, key: str, patch_size: Sequence[int]) -> None:
        """Store an integer label map (*prepared_shape), in the place of what was there. Raises StorageError."""
        content = _compress(label, patch_size, blosc2.Codec.ZSTD)
        (self.folder / (name + RECORD)).unlink(missing_ok=True)
        files.write_bytes(self.folder / (name + LABEL), content)
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        record = LabelRecord(key=key, file=FileRecord(size=len(content), digest=digest))
        record.write(self.folder / (name + RECORD))

    def is_current(self, name: str, key: str) -> bool:
        """Return whether the label map is complete and was computed from the inputs of `key`."""
        path = self.folder / (name + LABEL)
        try:
            record = LabelRecord.read(self.folder / (name + RECORD))
        except StorageError:
            return False
        return record.key == key and path.is_file() and path.stat().st_size == record.file.size

    def open(self, name: str) -> StoredArray:
        """Open a label map for reading.

        Raises:
            StorageError: It is not in the store, or damaged.
        """
        path = self.folder / (name + LABEL)
        if not path.is_file():
            raise StorageError(
                f"{self.folder} has no prediction of case {name}. Train the previous stage's folds first."
            )
        return open_array(path)


def open_array(path: Path) -> StoredArray:
    """Open a stored array for reading. Raises StorageError when it is damaged."""
    try:
        return StoredArray(
            blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1}), path
        )
    except Exception as error:
        raise _damaged(path, str(error)) from error


def chunking(
    shape: Sequence[int], patch_size: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the chunk and block shape of an array whose last three axes are read in patches.

    A block is decompressed as a whole: about 20 x 32 x 64 voxels for a 3D patch, 128 x 128 for a 2D patch, within the patch.
    Axes are cut evenly, since blosc2 pads the last block. A chunk has up to 2 blocks per axis.
    """
    patch = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    lead = (1,) * (len(shape) - 3)
    chunks, blocks = [], []
    for size, edge, target in zip(shape[-3:], patch, _BLOCK[len(patch_size)], strict=True):
        count = max(1, round(size / min(target, edge)))
        block = math.ceil(size / count)
        count = math.ceil(size / block)
        per_chunk = math.ceil(count / math.ceil(count / _BLOCKS_PER_CHUNK))
        blocks.append(block)
        chunks.append(min(size, block * per_chunk))
    return (*lead, *chunks), (*lead, *blocks)


def _compress(array: np.ndarray, patch_size: Sequence[int], codec: blosc2.Codec) -> bytes:
    """Return the content of a b2nd file; LZ4HC is read twice as fast as ZSTD, which makes small files of label maps."""
    chunks, blocks = chunking(array.shape, patch_size)
    parameters = blosc2.CParams(
        codec=codec,
        clevel=1,
        filters=[blosc2.Filter.SHUFFLE if array.dtype.itemsize > 1 else blosc2.Filter.NOFILTER],
        filters_meta=[0],
        typesize=array.dtype.itemsize,
        nthreads=1,
    )
    compressed = blosc2.asarray(
        np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=parameters
    )
    return bytes(compressed.to_cframe())


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
    images, label = case.images, case.label
    if (
        images.ndim != 4
        or label.shape != images.shape[1:]
        or label.shape != tuple(case.geometry.prepared_shape)
    ):
        raise PluginError(
            f"The preprocessor returned images {images.shape}, a label {label.shape} and prepared_shape "
            f"{case.geometry.prepared_shape} for case {case.name}; they must be (C, *shape), shape and shape."
        )
    if images.dtype != np.float32 or label.dtype not in (np.int8, np.int16):
        raise PluginError(
            f"The preprocessor returned {images.dtype} images and a {label.dtype} label for case {case.name}; "
            "they must be float32, and int8 or int16."
        )


def _damaged(path: Path, problem: str) -> StorageError:
    return StorageError(
        f"{path} is damaged: {problem}. Delete what is left of the case there and run the same command "
        "again, which prepares it anew. 'nnunet preprocess --verify' finds and mends every damaged case."
    )
