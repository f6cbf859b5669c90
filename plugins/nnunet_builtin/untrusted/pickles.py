"""Read pickles without running them: instruction by instruction, into plain values.

A pickle is a program that may call any function that it names. Here its instructions move values on
a stack of our own, and a name is looked up, module and name as one exact pair, in a table of
stand-ins that only collect their arguments. What is not in the table is an error before anything is
called; Python's own unpickler, which imports what it is told to, is never asked.
"""

from __future__ import annotations

import contextlib
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from nnunet_builtin.untrusted.stand_ins import (
    ATOMS,
    PLAIN,
    ForbiddenError,
    Inert,
    Named,
    TooLargeError,
    checked_key,
)
from nnunet_core.errors import StorageError
from nnunet_core.runtime import files

#: (module, name) -> what a name of a file stands for: a builder of ours, or a constant.
Names = Mapping[tuple[str, str], Any]

_LINE = 1 << 20  # bytes of an argument that ends with its line
_BITS = 128  # of a number; PyTorch's own have 80
_BYTES_PER_VALUE = 16
_ARGUMENTS = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ]
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Limits:
    """What a pickle may ask for: far above what models and folds need, far below a machine's.

    Attributes:
        size: Bytes of the pickle.
        instructions: How many are read.
        values: What it may build: strings, numbers and containers, each as often as it occurs.
        depth: Containers in containers.
    """

    size: int = 1 << 26
    instructions: int = 8_000_000
    values: int = 8_000_000
    depth: int = 64


def read_pickle(path: Path, limits: Limits | None = None, advice: str = "") -> Any:
    """Return the content of a file that is one pickle: plain values and NumPy arrays.

    Args:
        path: The file.
        limits: What it may ask for.
        advice: What to do when the file is refused, for the message.

    Raises:
        StorageError: The file cannot be read, is no pickle, asks for more than the limits, or for a
            class or function that has no stand-in.
    """
    limits = limits or Limits()
    with opened(path) as file, refusing(path, advice):
        return resolved(parse(file, limits), limits)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file to read.

    Raises:
        StorageError: There is none, it may not be read, or it is a pipe or device.
    """
    try:
        files.check_regular(path)
        file = path.open("rb")
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    with file:
        yield file


@contextlib.contextmanager
def refusing(source: object, advice: str = "") -> Iterator[None]:
    """Turn whatever a hostile or damaged file raises into one message about it.

    Raises:
        StorageError: Anything was raised.
    """
    advice = advice and f" {advice}"
    try:
        yield
    except StorageError:
        raise
    except ForbiddenError as error:
        raise StorageError(
            f"{source} needs '{error}', which is not read, and nothing of it was run: a pickle "
            "could run any program. Allowed are numbers, text, containers, NumPy arrays and "
            f"tensors.{advice}"
        ) from error
    except TooLargeError as error:
        raise StorageError(
            f"{source} asks for {error}, more than such a file needs. Is it the right file?{advice}"
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(str(error).split())[:200]
        raise StorageError(
            f"{source} is no readable pickle: {type(error).__name__}: {reason}. Get an intact copy "
            f"of the file.{advice}"
        ) from error


def parse(
    stream: IO[bytes],
    limits: Limits,
    names: Names = PLAIN,
    stored: Callable[[Any], Any] | None = None,
) -> Any:
    """Return what the pickle at the position of a stream builds, stand-ins included (`resolved`
    takes them away); the stream then stands behind it.

    Args:
        stream: Binary.
        limits: What it may ask for.
        names: What names stand for.
        stored: From a persistent id (a value that the file keeps elsewhere) to a stand-in; None
            refuses such ids.

    Raises:
        ForbiddenError: It names something else, or uses instructions that no plain pickle has.
        TooLargeError: It asks for more than the limits.
        Exception: Of any kind, where it is damaged.
    """
    bounded = _Bounded(stream, limits.size)
    machine = _Machine(names, limits, stored)
    instructions = pickletools.genops(cast(IO[bytes], bounded))
    for count, (instruction, argument, _) in enumerate(instructions):
        if count >= limits.instructions:
            raise TooLargeError(f"more than {limits.instructions} instructions")
        if instruction.name == "FRAME" and (argument or 0) > bounded.left:
            raise TooLargeError(f"a frame of {argument} bytes")
        machine.do(instruction.name, argument)
    return machine.pop()


def resolved(content: Any, limits: Limits) -> Any:
    """Return the content of a pickle without stand-ins: dicts, lists, tuples, sets, text, numbers,
    arrays, tensors. A name that was not called is its text.

    Raises:
        TooLargeError: It has more values than the limit, each counted as often as it occurs, or
            deeper containers.
        ForbiddenError: A container holds itself, or a stand-in was left incomplete.
    """
    return _Resolver(limits).of(content)[0]


class _Bounded:
    """A stream of which a pickle may read so many bytes and no more; what asks for more is refused
    before memory is taken for it.
    """

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self._stream, self.left = stream, left

    def read(self, size: int) -> bytes:
        if size > self.left:
            raise TooLargeError(f"{size} bytes of content")
        self.left -= size
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(_LINE)
        self.left -= len(line)
        if self.left < 0 or (len(line) == _LINE and not line.endswith(b"\n")):
            raise TooLargeError(f"a line of more than {_LINE} bytes")
        return line


class _Machine:
    """The stack, the marks on it and the memo of a pickle that is read."""

    def __init__(
        self, names: Names, limits: Limits, stored: Callable[[Any], Any] | None = None
    ) -> None:
        self.names, self.stored = names, stored
        self.left = limits.values  # what calls may still copy
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in _ARGUMENTS:
            self.stack.append(_checked(argument))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif (method := _METHODS.get(name)) is not None:
            method(self, argument)
        else:
            raise ForbiddenError(f"the instruction {name}")

    def pop(self) -> Any:
        """Take the value on top, but none below a mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes a value where none is")
        return self.stack.pop()

    def _pop_marked(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _below(self, kinds: tuple[type, ...], what: str) -> Any:
        """Return the container on top, to which something is added."""
        target = self.pop()
        self.stack.append(target)
        if type(target) not in kinds:
            raise ForbiddenError(f"{what} added to a {type(target).__name__}")
        return target

    def _nothing(self, _: Any) -> None: ...

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _drop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def _drop_marked(self, _: Any) -> None:
        self._pop_marked()

    def _list(self, _: Any) -> None:
        self.stack.append(self._pop_marked())

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_marked()))

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(checked_key, self._pop_marked())))

    def _dict(self, _: Any) -> None:
        self.stack.append(_paired({}, self._pop_marked()))

    def _append(self, _: Any) -> None:
        item = self.pop()
        self._below((list,), "an item").append(item)

    def _appends(self, _: Any) -> None:
        items = self._pop_marked()
        self._below((list,), "items").extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._below((dict, OrderedDict), "an entry")[checked_key(key)] = value

    def _set_items(self, _: Any) -> None:
        items = self._pop_marked()
        _paired(self._below((dict, OrderedDict), "entries"), items)

    def _add_items(self, _: Any) -> None:
        items = self._pop_marked()
        self._below((set,), "items").update(map(checked_key, items))

    def _put(self, place: Any) -> None:
        value = self.pop()
        self.stack.append(value)
        self.memo[len(self.memo) if place is None else place] = value

    def _get(self, place: Any) -> None:
        self.stack.append(self.memo[place])

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if type(module) is not str or type(name) is not str:
            raise ForbiddenError("a name that is no text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        # the pair as a whole: a name with dots, which would go on to attributes, is in no table
        if (module, name) not in self.names:
            raise ForbiddenError(f"{module}.{name}")
        self.stack.append(Named(f"{module}.{name}", self.names[module, name]))

    def _call(self, _: Any) -> None:
        arguments, called = self.pop(), self.pop()
        if type(called) is not Named or not callable(called.meaning):
            raise ForbiddenError(f"a call of a {_described(called)}")
        if type(arguments) is not tuple:
            raise ForbiddenError(f"arguments of {called.text} that are no tuple")
        self.left -= sum(map(_weight, arguments))
        if self.left < 0:
            raise TooLargeError("more copies of its values")
        self.stack.append(called.meaning(*arguments))

    def _set_state(self, _: Any) -> None:
        state = self.pop()
        target = self.pop()
        self.stack.append(target)
        if isinstance(target, Inert):
            target.set_state(state)
        elif type(target) is not OrderedDict:  # a state dict's says which versions its layers have
            raise ForbiddenError(f"a state of a {_described(target)}")

    def _persistent(self, _: Any) -> None:
        if self.stored is None:
            raise ForbiddenError("the instruction BINPERSID")
        self.stack.append(self.stored(self.pop()))


_METHODS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _Machine._nothing),
    "MARK": _Machine._mark,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_marked,
    "LIST": _Machine._list,
    "TUPLE": _Machine._tuple,
    "FROZENSET": _Machine._frozenset,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "ADDITEMS": _Machine._add_items,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._get),
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine._call),
    "BUILD": _Machine._set_state,
    "BINPERSID": _Machine._persistent,
}


class _Resolver:
    """Takes stand-ins away; what occurs several times is resolved once, and counted each time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._above = 0  # containers around the one that is resolved
        # of containers, by identity: value, values in it, containers in it; None while it is open
        self._known: dict[int, tuple[Any, int, int] | None] = {}

    def of(self, content: Any) -> tuple[Any, int, int]:
        """Return a value without stand-ins, the number of values in it, and how deep it is."""
        if type(content) in ATOMS:
            return content, 1, 0
        key = id(content)
        if key not in self._known:
            self._known[key] = None
            self._above += 1
            self._check(1, 0)
            self._known[key] = self._resolve(content)
            self._above -= 1
        found = self._known[key]
        if found is None:
            raise ForbiddenError("a container that holds itself")
        self._check(*found[1:])
        return found

    def _check(self, count: int, depth: int) -> None:
        if count > self._limits.values:
            raise TooLargeError(f"more than {self._limits.values} values")
        if self._above + depth > self._limits.depth:
            raise TooLargeError(f"containers more than {self._limits.depth} deep")

    def _resolve(self, content: Any) -> tuple[Any, int, int]:
        if type(content) is bytearray:
            return bytes(content), 1, 0
        if isinstance(content, Inert):
            parts = [self.of(part) for part in content.parts()]
            value, count = content.value([part for part, _, _ in parts])
            return value, count + _count(parts), _depth(parts)
        if type(content) in (dict, OrderedDict):
            keys = [self.of(key) for key in content]
            values = [self.of(value) for value in content.values()]
            made = {checked_key(k[0]): v[0] for k, v in zip(keys, values, strict=True)}
            return made, 1 + _count([*keys, *values]), _depth([*keys, *values])
        items = [self.of(item) for item in content]
        kind: Any = type(content)
        if kind in (set, frozenset):
            items = [(checked_key(item), *rest) for item, *rest in items]
        return kind(item for item, _, _ in items), 1 + _count(items), _depth(items)


def _count(parts: list[tuple[Any, int, int]]) -> int:
    return sum(count for _, count, _ in parts)


def _depth(parts: list[tuple[Any, int, int]]) -> int:
    return 1 + max((depth for _, _, depth in parts), default=0)


def _checked(argument: Any) -> Any:
    if type(argument) is int and argument.bit_length() > _BITS:
        raise TooLargeError(f"a number of {argument.bit_length()} bits")
    return argument


def _paired(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[checked_key(key)] = value
    return target


def _weight(argument: Any) -> int:
    """Return how much a call may copy of an argument."""
    if isinstance(argument, str | bytes | bytearray):
        return 1 + len(argument) // _BYTES_PER_VALUE
    return 1 + (len(argument) if isinstance(argument, Sized) else 0)


def _described(value: Any) -> str:
    return value.text if type(value) is Named else type(value).__name__.strip("_").lower()
