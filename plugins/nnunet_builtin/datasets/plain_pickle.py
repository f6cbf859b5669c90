"""Read pickles that hold nothing but lists, dicts and strings; no code of the file, and none of
NumPy, is run.

A pickle may call any function that it names. Here it may name plain containers, and stand-ins that
turn NumPy arrays of strings into lists: whatever else it names is an error, before anything is
called. Its size, its instructions and what they may build are limited before any of it is built.
"""

from __future__ import annotations

import functools
import io
import math
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

from nnunet_core.errors import StorageError
from nnunet_core.runtime import files

_LARGEST = 1 << 24  # bytes; 20,000 cases in five folds take less than half of it
_BYTES_PER_NODE = 16
_MOST_NODES = 500_000  # strings and containers, each as often as it occurs
_INSTRUCTIONS = frozenset(
    [
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_SET", "LIST", "TUPLE", "TUPLE1"),
        *("TUPLE2", "TUPLE3", "DICT", "FROZENSET", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
        *("ADDITEMS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    ]
)


def read_plain_pickle(path: Path) -> Any:
    """Return the content of a pickle, its NumPy arrays and scalars of strings as lists and strings.

    Raises:
        StorageError: The file cannot be read, is no pickle, is larger or would become larger than
            folds are, or needs a class or function that is not allowed.
    """
    try:
        files.check_regular(path)
        if path.stat().st_size > _LARGEST:
            raise StorageError(f"{path} has more than {_LARGEST} bytes; folds take fewer.")
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    try:
        _check_instructions(content)
        reader = _PlainUnpickler(io.BytesIO(content))
        return reader.resolved(reader.load())
    except _ForbiddenError as error:
        raise StorageError(
            f"{path} needs '{error}', which is not read: a pickle could run any program. Allowed "
            "are lists, tuples, sets, dicts, strings and NumPy arrays of strings. Save the folds "
            "as JSON instead."
        ) from error
    except _TooLargeError as error:
        raise StorageError(
            f"{path} needs {error}; folds are smaller. Is it the right file? Otherwise save the "
            "folds as JSON."
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise StorageError(
            f"{path} is no readable pickle: {type(error).__name__}: {error}"
        ) from error


def _check_instructions(content: bytes) -> None:
    for index, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        if instruction.name not in _INSTRUCTIONS:
            raise _ForbiddenError(f"the instruction {instruction.name}")
        # each number names a place in a list: one large number alone would take gigabytes
        if instruction.name.endswith("PUT") and int(argument or 0) > index:
            raise _TooLargeError(f"a place {argument} in its memory")


class _ForbiddenError(Exception):
    """The file names something that is not allowed."""


class _TooLargeError(Exception):
    """The file is, or would become, larger than folds are."""


class _Dtype:
    """Stands for numpy.dtype: kind, bytes per item, byte order."""

    def __init__(self, name: str, *_: object) -> None:
        self.kind, self.size, self.order = name[:1], int(name[1:] or 0), "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def strings(self, content: bytes) -> list[str]:
        """Return the strings of a buffer; NumPy fills up with zeros."""
        text = bytes(content).decode("utf-32-be" if self.order == ">" else "utf-32-le")
        return [text[i : i + self.size].rstrip("\0") for i in range(0, len(text), self.size)]


class _Array:
    """Stands for numpy.ndarray with one axis: its strings, or the buffer that they come from."""

    def __init__(self, *_: object) -> None:
        self.items: list[Any] = []
        self.dtype, self.content = _Dtype("U1"), b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, self.dtype, _, content = state
        if isinstance(content, list):
            self.items, count = content, len(content)
        else:
            self.content, width = content, 4 * self.dtype.size
            if self.dtype.kind != "U" or width == 0 or len(content) % width:
                raise _ForbiddenError(f"a NumPy array of kind '{self.dtype.kind}{self.dtype.size}'")
            count = len(content) // width
        if len(shape) != 1 or math.prod(shape) != count:
            raise _ForbiddenError(f"a NumPy array of shape {shape}")


class _Scalar(_Array):
    """Stands for numpy.str_."""


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], *_: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, False, content))
    return array


def _scalar(dtype: _Dtype, content: bytes) -> _Scalar:
    scalar = _Scalar()
    scalar.__setstate__((1, (1,), dtype, False, content))
    return scalar


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
    """Builds what `_CONTAINERS` and `_NUMPY` name, up to `_MOST_NODES` values in all."""

    def __init__(self, content: io.BytesIO) -> None:
        super().__init__(content)
        self.left = _MOST_NODES

    def find_class(self, module: str, name: str) -> Any:
        """Return what a global of the file stands for."""
        if module in {"builtins", "__builtin__"} and name in _CONTAINERS:
            return functools.partial(self._build, _CONTAINERS[name])
        if (module, name) == ("collections", "OrderedDict"):
            return functools.partial(self._build, OrderedDict)
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        known = module == "numpy" or short != module
        if known and f"{short} {name}" in _NUMPY:
            return _NUMPY[f"{short} {name}"]
        raise _ForbiddenError(f"{module}.{name}")

    def _build(self, kind: type, *arguments: Any) -> Any:
        self._take(sum(len(argument) for argument in arguments))
        return kind(*arguments)

    def _take(self, count: int) -> None:
        """Count values. What is named again and again counts each time: ten lines may be a
        billion.
        """
        self.left -= count + 1
        if self.left < 0:
            raise _TooLargeError(f"more than {_MOST_NODES} values")

    def resolved(self, content: Any) -> Any:
        """Return the content with arrays replaced by lists."""
        self._take(0)
        if isinstance(content, _Array):
            self._take(len(content.content) // _BYTES_PER_NODE)
            strings = content.dtype.strings(content.content) if content.content else content.items
            items = [self.resolved(item) for item in strings]
            return items[0] if isinstance(content, _Scalar) else items
        if isinstance(content, dict):
            return {self.resolved(key): self.resolved(value) for key, value in content.items()}
        if isinstance(content, list | tuple | set | frozenset):
            return [self.resolved(item) for item in content]
        return content
