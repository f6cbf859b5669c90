"""What names in a pickle stand for here: builders that collect their arguments, containers, and
arrays whose bytes are all there.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np

ATOMS = (str, int, float, bool, bytes, type(None))
_KEY_PARTS = 64
_BUILTINS = ("builtins", "__builtin__")
_CORES = ("numpy.core", "numpy._core")
_DTYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|[USO]\d{0,6})")
_ORDERS = {"<", ">", "|", "="}
_AXES = 32


class ForbiddenError(Exception):
    """A pickle needs what is not read."""


class TooLargeError(Exception):
    """A pickle asks for more than its limits."""


class Inert:
    """What a builder returns while the pickle is read: it holds its parts and does nothing."""

    def set_state(self, state: Any) -> None:  # noqa: ARG002
        """Take the argument of the instruction BUILD.

        Raises:
            ForbiddenError: It has no state, or none of this form.
        """
        raise ForbiddenError(f"a state of a {type(self).__name__.strip('_').lower()}")

    def parts(self) -> Sequence[Any]:
        """Return values of the pickle that `value` needs without stand-ins."""
        return ()

    def value(self, parts: Sequence[Any]) -> tuple[Any, int]:
        """Return (what it stands for, how many values that is besides its parts)."""
        raise NotImplementedError


def checked_key(key: Any) -> Any:
    """Return what may be a key or the member of a set: text, numbers, short tuples of one of both.

    A tuple of tuples that share their parts would take forever to hash, and many tuples with one
    hash would take forever to tell apart.

    Raises:
        ForbiddenError: It is something else.
    """
    parts = key if type(key) is tuple else (key,)
    if len(parts) > _KEY_PARTS:
        raise ForbiddenError(f"a key of {len(parts)} parts")
    for part in parts:
        if type(part) not in ATOMS and not isinstance(part, _Scalar):
            raise ForbiddenError(f"a key with a {type(part).__name__.strip('_').lower()} in it")
        # numbers that are equal modulo 2**61 - 1 have one hash
        if type(part) is int and part.bit_length() > 64:
            raise ForbiddenError(f"a key with a number of {part.bit_length()} bits")
    if type(key) is tuple and not _differs_by_hash(key):
        raise ForbiddenError("a key of negative, huge, broken or mixed values")
    return key


def _differs_by_hash(parts: tuple[Any, ...]) -> bool:
    """Whether no other tuple of such parts has this hash: -1 and -2 have one, and so have 0 and ""
    and 2**61 - 1, so that 20 of them are a million tuples with one hash.
    """
    kinds = set(map(type, parts))
    if kinds == {int}:
        return all(0 <= part < 1 << 60 for part in parts)
    return len(kinds) <= 1 and kinds <= {str, _Scalar}  # scalars again when they are resolved


class Named(Inert):
    """A name in a pickle; where it is not called, it is its text.

    Attributes:
        text: As the file has it.
        meaning: A builder of ours, or a constant.
    """

    def __init__(self, text: str, meaning: Any) -> None:
        self.text, self.meaning = text, meaning

    def value(self, parts: Sequence[Any]) -> tuple[Any, int]:  # noqa: ARG002
        """Return its text."""
        return self.text, 1


class _Dtype(Inert):
    """Stands for numpy.dtype: booleans, numbers, text, bytes, or objects."""

    def __init__(self, name: Any, *_: object) -> None:
        if type(name) is not str or not _DTYPE.fullmatch(name):
            raise ForbiddenError(f"the type {str(name)[:40]} of NumPy")
        self.name, self.order = name.lstrip("<>=|"), "<"

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5 or any(state[2:5]):
            raise ForbiddenError("a type of NumPy that is made of others")
        if state[1] not in _ORDERS:
            raise ForbiddenError(f"the byte order {state[1]!r}")
        self.order = ">" if state[1] == ">" else "<"

    @property
    def is_object(self) -> bool:
        return self.name.startswith("O")

    def numpy(self) -> np.dtype:
        return np.dtype("O" if self.is_object else self.order + self.name)

    def value(self, parts: Sequence[Any]) -> tuple[Any, int]:  # noqa: ARG002
        return self.numpy().str, 1


class _Array(Inert):
    """Stands for numpy.ndarray; its shape is only believed where all of its content is there."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype, self.content = _Dtype("b1"), cast(Any, b"")
        self.order: Literal["C", "F"] = "C"

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: Literal["C", "F"] = "C") -> None:
        """Take the parts of an array.

        Raises:
            ForbiddenError: They do not fit together.
        """
        if not isinstance(dtype, _Dtype) or type(shape) is not tuple or len(shape) > _AXES:
            raise ForbiddenError("an array of NumPy that is none")
        if any(type(size) is not int or size < 0 for size in shape):
            raise ForbiddenError(f"an array of NumPy of shape {str(shape)[:60]}")
        if type(content) is not (list if dtype.is_object else bytes):
            raise ForbiddenError(f"an array of NumPy made of a {type(content).__name__}")
        width = 1 if dtype.is_object else dtype.numpy().itemsize
        if width < 1 or math.prod(shape) * width != len(content):
            raise ForbiddenError(
                f"an array of NumPy of shape {str(shape)[:60]} and type {dtype.name} with "
                f"{len(content)} bytes or objects of content"
            )
        self.shape, self.dtype, self.content, self.order = shape, dtype, content, order

    def parts(self) -> Sequence[Any]:
        return self.content if self.dtype.is_object else ()

    def value(self, parts: Sequence[Any]) -> tuple[Any, int]:
        if self.dtype.is_object:
            array = np.empty(len(parts), object)
            for index, part in enumerate(parts):
                array[index] = part
        else:
            array = np.frombuffer(self.content, self.dtype.numpy()).copy()
        return array.reshape(self.shape, order=self.order), 1 + array.size


class _Scalar(Inert):
    """Stands for a number or text of NumPy; its value is a plain one."""

    def __init__(self, dtype: Any, content: Any = b"") -> None:
        if not isinstance(dtype, _Dtype) or dtype.is_object or type(content) is not bytes:
            raise ForbiddenError("a scalar of NumPy that is none")
        if dtype.numpy().itemsize != len(content):
            raise ForbiddenError(
                f"a scalar of NumPy of type {dtype.name} with {len(content)} bytes of content"
            )
        self.dtype, self.content = dtype, content

    def value(self, parts: Sequence[Any]) -> tuple[Any, int]:  # noqa: ARG002
        if not self.content:
            return "" if self.dtype.name.startswith("U") else b"", 1
        found: Any = np.frombuffer(self.content, self.dtype.numpy())[0].item()
        return found, 1 + len(self.content) // 16


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    plain = bytes(content) if type(content) is bytearray else content
    array.fill(plain, dtype, shape, "F" if order == "F" else "C")
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stands for _codecs.encode, by which old protocols hold bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1", "iso-8859-1"):
        raise ForbiddenError(f"_codecs.encode with {str(encoding)[:40]}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands for bytes(), as old protocols write an empty one."""
    return b""


def _items(content: Any) -> Sequence[Any]:
    if type(content) not in (list, tuple, set, frozenset, dict, OrderedDict):
        raise ForbiddenError(f"a container made of a {type(content).__name__}")
    return list(content)


def _list(content: Any = ()) -> list[Any]:
    return list(_items(content))


def _tuple(content: Any = ()) -> tuple[Any, ...]:
    return tuple(_items(content))


def _set(content: Any = ()) -> set[Any]:
    return set(map(checked_key, _items(content)))


def _frozenset(content: Any = ()) -> frozenset[Any]:
    return frozenset(map(checked_key, _items(content)))


def _ordered(content: Any = ()) -> OrderedDict[Any, Any]:
    pairs = content.items() if isinstance(content, dict) else _items(content)
    return OrderedDict((checked_key(key), value) for key, value in pairs)


#: What a file without tensors may name.
PLAIN = {
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{(module, "bytes"): _no_bytes for module in _BUILTINS},
    **{(module, "list"): _list for module in _BUILTINS},
    **{(module, "tuple"): _tuple for module in _BUILTINS},
    **{(module, "set"): _set for module in _BUILTINS},
    **{(module, "frozenset"): _frozenset for module in _BUILTINS},
    **{(module, "dict"): _ordered for module in _BUILTINS},
    **{(f"{core}.multiarray", "scalar"): _Scalar for core in _CORES},
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _CORES},
}
