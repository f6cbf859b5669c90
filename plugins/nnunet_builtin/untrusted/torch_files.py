"""Read files of torch.save without running them: the zip format, and the one before PyTorch 1.6."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from nnunet_builtin.untrusted.pickles import Limits, opened, parse, refusing, resolved
from nnunet_builtin.untrusted.stand_ins import PLAIN, ForbiddenError, Inert, TooLargeError

_ADVICE = "Ask who made it for a file of nnU-Net v1 or v2."
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_AXES = 64
_ZIP = b"PK\x03\x04"
_UNTYPED = ("torch", "torch.storage")
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (*_STORAGES.values(), torch.uint16, torch.uint32, torch.uint64)
}


def read_checkpoint(
    path: Path, keys: Collection[str] | None = None, limits: Limits | None = None
) -> Any:
    """Return the content of a file of torch.save: plain values, NumPy arrays and CPU tensors; names
    that were not called (a dtype) as their text, a device as its text ("cuda:0").

    Tensors that shared memory share it again, whatever device they were on.

    Args:
        path: `model_final_checkpoint.model`, `checkpoint_final.pth`, ...
        keys: Of the dict that the file holds, return only these; the tensors of others are not
            read.
        limits: What its pickle may ask for; tensors are limited by the size of the file.

    Raises:
        StorageError: The file cannot be read, is damaged, or asks for more than tensors and plain
            values: nothing of it was run.
    """
    limits = limits or Limits()
    with opened(path) as file, refusing(path, _ADVICE):
        size = os.fstat(file.fileno()).st_size
        start = file.read(len(_ZIP))
        file.seek(0)
        read = _read_zip if start == _ZIP else _read_old
        with read(file, size, limits) as content:
            if keys is None or not isinstance(content, dict):
                return resolved(content, limits)
            return resolved({key: content[key] for key in keys if key in content}, limits)


@contextlib.contextmanager
def _read_zip(file: IO[bytes], size: int, limits: Limits) -> Iterator[Any]:
    """Yield the content with stand-ins, while storages can be read."""
    with zipfile.ZipFile(file) as archive:
        archived = _Archive(archive, size)
        stream = io.BytesIO(archived.read("data.pkl"))
        yield parse(stream, limits, _NAMES, archived.storage)


class _Archive:
    """The zip file of torch.save: a pickle, and an entry for each storage."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive, self._left = archive, size
        self._entries = {info.filename: info for info in archive.infolist()}
        pickled = [name for name in self._entries if name.endswith("/data.pkl")]
        if len(pickled) != 1 or len(self._entries) != len(archive.infolist()):
            raise ForbiddenError("other entries than torch.save writes")
        self._prefix = pickled[0].removesuffix("data.pkl")
        self._storages: dict[str, _Bytes] = {}
        if f"{self._prefix}constants.pkl" in self._entries:
            raise ForbiddenError("the code of a TorchScript module")
        if f"{self._prefix}byteorder" in self._entries and self.read("byteorder") != b"little":
            raise ForbiddenError("the byte order of other machines")

    def read(self, name: str) -> bytes:
        """Return an entry; all of them together are no larger than the file."""
        entry = self._entries.get(self._prefix + name)
        if entry is None:
            raise ValueError(f"its entry {name[:80]} is missing")
        # torch.save compresses nothing; a small entry that unpacks to a large one is no model
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ForbiddenError(f"the compressed or encrypted entry {name[:80]}")
        self._left -= entry.file_size
        if self._left < 0:
            raise TooLargeError("entries that are larger than the file")
        return self._archive.read(entry)

    def storage(self, identity: Any) -> _Storage:
        """Return the stand-in of a storage."""
        dtype, key, count = _storage_identity(identity)
        read = functools.partial(self.read, f"data/{key}")
        return _Storage(self._storages.setdefault(key, _Bytes(read)), dtype, count)


@contextlib.contextmanager
def _read_old(file: IO[bytes], size: int, limits: Limits) -> Iterator[Any]:
    """Yield the content with stand-ins of the format before PyTorch 1.6: pickles of a number, a
    version, the system, the content and the keys of storages; then each storage.
    """
    if resolved(parse(file, limits, {}), limits) != _MAGIC:
        raise ValueError("it is no file of torch.save")
    if resolved(parse(file, limits, {}), limits) != _PROTOCOL:
        raise ForbiddenError("another version of the format than 1001")
    system = resolved(parse(file, limits, {}), limits)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ForbiddenError("the byte order of other machines")
    contents: dict[str, bytes] = {}
    dtypes: dict[str, torch.dtype] = {}
    storages: dict[str, _Bytes] = {}

    def storage(identity: Any) -> _Storage:
        dtype, key, count = _storage_identity(identity)
        if dtypes.setdefault(key, dtype) != dtype:
            raise ForbiddenError("a storage of two types")
        known = storages.setdefault(key, _Bytes(functools.partial(contents.__getitem__, key)))
        return _Storage(known, dtype, count)

    content = parse(file, limits, _NAMES, storage)
    for key in resolved(parse(file, limits, {}), limits):
        (count,) = struct.unpack("<q", file.read(8))
        wanted = count * dtypes[key].itemsize
        if not 0 <= wanted <= size - file.tell():
            raise TooLargeError(f"a storage of {wanted} bytes, which the file does not have")
        contents[key] = file.read(wanted)
    yield content


def _storage_identity(identity: Any) -> tuple[torch.dtype, str, int]:
    """Return (type, key, values) of a persistent id."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ForbiddenError("a persistent id that is no storage")
    _, kind, key, _, count, *view = identity
    dtype = getattr(kind, "meaning", None)
    if not isinstance(dtype, _StorageType) or type(key) is not str or any(view):
        raise ForbiddenError("a storage of a kind that is not read")
    if type(count) is not int or count < 0:
        raise ForbiddenError(f"a storage of {str(count)[:40]} values")
    return dtype.dtype, key, count


class _StorageType:
    """What the name of a storage's class stands for; it cannot be called."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Bytes:
    """The bytes of a storage; they are read when the first tensor needs them."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read

    @functools.cached_property
    def tensor(self) -> torch.Tensor:
        content = bytearray(self._read())  # a copy, since tensors may be written to
        return torch.frombuffer(content, dtype=torch.uint8) if content else _NO_BYTES


class _Storage(Inert):
    """Stands for a storage of a type; its value is a tensor with one axis."""

    def __init__(self, content: _Bytes, dtype: torch.dtype, count: int) -> None:
        self.content, self.dtype, self.count = content, dtype, count

    def value(self, parts: Sequence[Any]) -> tuple[Any, int]:  # noqa: ARG002
        return self.tensor(), 1

    def tensor(self) -> torch.Tensor:
        """Return all of its values.

        Raises:
            TooLargeError: The file has fewer.
        """
        content, needed = self.content.tensor, self.count * self.dtype.itemsize
        if needed > len(content):
            raise TooLargeError(f"a storage of {needed} bytes, of which {len(content)} are there")
        if self.dtype == torch.bool:
            return content[:needed].ne(0)
        return content[:needed].view(self.dtype)


class _Tensor(Inert):
    """Stands for a tensor: a view of a storage, within its bounds."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> None:
        if not isinstance(storage, _Storage) or not _are_counts((offset,)):
            raise ForbiddenError("a tensor that is none")
        if not (_are_counts(size) and _are_counts(stride) and len(size) == len(stride) <= _AXES):
            raise ForbiddenError(f"a tensor of shape {str(size)[:60]}")
        values = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if values and (values > storage.count or last >= storage.count):
            raise TooLargeError(
                f"a tensor of shape {str(tuple(size))[:60]} in a storage of {storage.count} values"
            )
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def value(self, parts: Sequence[Any]) -> tuple[Any, int]:  # noqa: ARG002
        flat = self.storage.tensor()
        if 0 in self.size:
            return flat.new_empty(self.size), 1
        return flat.as_strided(self.size, self.stride, self.offset), 1


def _are_counts(values: Any) -> bool:
    return type(values) is tuple and all(type(n) is int and 0 <= n < 1 << 62 for n in values)


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> _Tensor:
    """Stands for _rebuild_tensor_v3, whose storages are bytes and say nothing of their type."""
    meaning = getattr(dtype, "meaning", None)
    if not isinstance(storage, _Storage) or not isinstance(meaning, torch.dtype):
        raise ForbiddenError("a tensor that is none")
    typed = _Storage(storage.content, meaning, storage.count // meaning.itemsize)
    return _Tensor(typed, offset, size, stride)


def _parameter(tensor: Any, *_: object) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise ForbiddenError("a parameter that is no tensor")
    return tensor


def _size(content: Any) -> tuple[Any, ...]:
    if not _are_counts(tuple(content) if type(content) is list else content):
        raise ForbiddenError("a size that is none")
    return tuple(content)


def _device(kind: Any, index: Any = None) -> str:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise ForbiddenError("a device that is none")
    return kind if index is None else f"{kind}:{index}"


_NO_BYTES = torch.empty(0, dtype=torch.uint8)
_NAMES = {
    **PLAIN,
    **{
        (module, f"{name}Storage"): _StorageType(dtype)
        for module in ("torch", "torch.cuda")
        for name, dtype in _STORAGES.items()
    },
    **{(module, "UntypedStorage"): _StorageType(torch.uint8) for module in _UNTYPED},
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
}
