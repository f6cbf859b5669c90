"""Read pickles that hold nothing but lists, dicts and strings; no code of the file, and none of
NumPy, is run.

A pickle may call any function that it names. Here it may name plain containers, and stand-ins that
turn NumPy arrays of strings into lists: whatever else it names is an error, before anything is
called.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

from nnunet_core.errors import StorageError


def read_plain_pickle(path: Path) -> Any:
    """Return the content of a pickle, its NumPy arrays and scalars of strings as lists and strings.

    Raises:
        StorageError: The file cannot be read, is no pickle, or needs a class or function that is
            not allowed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    try:
        return _resolved(_PlainUnpickler(io.BytesIO(content)).load())
    except _ForbiddenError as error:
        raise StorageError(
            f"{path} needs '{error}', which is not read: a pickle could run any program. Allowed "
            "are lists, tuples, sets, dicts, strings and NumPy arrays of strings. Save the folds "
            "as JSON instead."
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise StorageError(
            f"{path} is no readable pickle: {type(error).__name__}: {error}"
        ) from error


class _ForbiddenError(Exception):
    """The file names something that is not allowed."""


class _Dtype:
    """Stands for numpy.dtype: kind, bytes per item, byte order."""

    def __init__(self, name: str, *_: object) -> None:
        self.kind, self.size, self.order = name[:1], int(name[1:] or 0), "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def strings(self, content: bytes) -> list[str]:
        """Return the strings of a buffer; NumPy fills up with zeros."""
        if self.kind != "U" or self.size == 0 or len(content) % (4 * self.size):
            raise _ForbiddenError(f"a NumPy array of kind '{self.kind}{self.size}'")
        text = bytes(content).decode("utf-32-be" if self.order == ">" else "utf-32-le")
        return [text[i : i + self.size].rstrip("\0") for i in range(0, len(text), self.size)]


class _Array:
    """Stands for numpy.ndarray; `items` are the elements of its only axis."""

    def __init__(self, *_: object) -> None:
        self.items: list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, content = state
        self.items = content if isinstance(content, list) else dtype.strings(content)
        if len(shape) != 1 or math.prod(shape) != len(self.items):
            raise _ForbiddenError(f"a NumPy array of shape {shape}")


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], *_: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, False, content))
    return array


def _scalar(dtype: _Dtype, content: bytes) -> str:
    return dtype.strings(content)[0]


_CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "str": str,
}
_NUMPY = {
    "numpy ndarray": _Array,
    "numpy dtype": _Dtype,
    "multiarray _reconstruct": _Array,
    "multiarray scalar": _scalar,
    "numeric _frombuffer": _from_buffer,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what a global of the file stands for."""
        if module == "builtins" and name in _CONTAINERS:
            return _CONTAINERS[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        known = module == "numpy" or short != module
        if known and f"{short} {name}" in _NUMPY:
            return _NUMPY[f"{short} {name}"]
        raise _ForbiddenError(f"{module}.{name}")


def _resolved(content: Any) -> Any:
    """Return the content with arrays replaced by lists."""
    if isinstance(content, _Array):
        return [_resolved(item) for item in content.items]
    if isinstance(content, dict):
        return {key: _resolved(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_resolved(item) for item in content]
    return content
