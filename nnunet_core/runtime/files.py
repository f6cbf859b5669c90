"""Files that are whole or absent: atomic writes, JSON with a schema version, digests."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import hashlib
import itertools
import json
import os
import secrets
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from nnunet_core.errors import StorageError
from nnunet_core.runtime.collecting import collector_rests

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HASHING_THREADS = 4
_CHUNK = 512  # files, at most
_JSON_PARTS = 10_000  # numbers, names and signs
_HERE, _RENAME_EXCHANGE = -100, 2  # of renameat2: relative to the current folder; change names
_Model = TypeVar("_Model", bound="Document")
#: Writes a JSON value in one way, whatever the order of its keys.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class Document(BaseModel):
    """A JSON file of this project: strict, immutable, with a schema version."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = 1

    @classmethod
    @collector_rests()
    def read(cls: type[_Model], path: Path) -> _Model:
        """Read and validate a file.

        Raises:
            StorageError: Missing file, invalid JSON, or fields that are unknown, missing, given
                twice or of the wrong type.
        """
        try:
            check_regular(path)
            content = path.read_bytes()
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error}") from error
        text = _decode(content, path)
        parse_json(text, path)  # pydantic takes the last of two equal keys without a word
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            _refuse_other_version(path, error)
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5]
            )
            raise StorageError(
                f"{path} does not hold what a file of this kind holds: {problems}. Get an intact "
                "copy, or make it anew."
            ) from error

    def write(self, path: Path) -> None:
        """Write the file atomically, indented, keys in declared order."""
        write_text(path, self.model_dump_json(indent=1) + "\n")


def _refuse_other_version(path: Path, error: ValidationError) -> None:
    """Raise StorageError where the format of a file is not the one that this version reads."""
    for problem in error.errors():
        # a number too large for the parser has no expected value beside it, and is no version
        expected = problem.get("ctx", {}).get("expected")
        if problem["loc"] == ("schema_version",) and expected is not None:
            raise StorageError(
                f"{path} has format {problem['input']}; this version of nnunet-core reads format "
                f"{expected}. Another version wrote it: use that one, or another "
                "folder."
            ) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well; it is removed
    otherwise.

    The content is flushed to the disk (fsync) before the replacement, so that a crash leaves the
    old file or the new one.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path, Path.touch) as temporary:  # with the permissions of any new file
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `folder` that takes its place when the block ends well; it is
    removed otherwise.

    Args:
        folder: What to make.
        overwrite: Replace an existing folder; it is removed only after the new one stands in its
            place, and there is always one of them there.

    Raises:
        StorageError: The folder exists, the disk is full, or the parent folder cannot be written.
    """
    if folder.exists() and not overwrite:
        raise StorageError(
            f"{folder} exists already. Remove it or choose another name; it is not replaced "
            "silently."
        )
    with temporary_folder(folder) as temporary:
        yield temporary
        if folder.exists():
            _exchange(temporary, folder)
        else:
            temporary.rename(folder)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, whose name begins like it; it is removed when the block
    ends, or when another one is made there after this process was killed.

    Raises:
        StorageError: The disk is full, or the parent folder cannot be written.
    """
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))
        with _temporary(path, Path.mkdir) as temporary:
            yield temporary


def _exchange(new: Path, old: Path) -> None:
    """Let two folders of one parent change their names, at once where the system can do that."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):  # another system than Linux
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        if rename(_HERE, os.fsencode(new), _HERE, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
    aside = new.with_suffix(".old")
    old.rename(aside)
    try:
        new.rename(old)
    except BaseException:
        aside.rename(old)
        raise
    aside.rename(new)


@contextlib.contextmanager
def _temporary(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a new file or folder beside `path`, marked as one that a living process writes; what is
    left under its name when the block ends is removed.
    """
    temporary, mark = _made(path, make)
    try:
        yield temporary
    finally:
        _remove(temporary)
        if mark is not None:
            os.close(mark)


def _made(path: Path, make: Callable[[Path], None]) -> tuple[Path, int | None]:
    """Make a file or folder beside `path` and mark it."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        make(temporary)
        mark = _marked(temporary, wait=True)
        if temporary.exists():
            return temporary, mark
        if mark is not None:  # somebody took it for abandoned before it was marked
            os.close(mark)


def _marked(path: Path, wait: bool) -> int | None:
    """Lock a file or folder; return its descriptor, None where that fails."""
    if fcntl is None:
        return None
    try:
        # network file systems lock only what may be written
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of writers that were killed, in a folder and below; those of
    writers that live stay.
    """
    _remove_abandoned(  # of folders that others remove meanwhile os.walk says nothing
        Path(place, name)
        for place, folders, names in os.walk(folder)
        for name in fnmatch.filter([*folders, *names], ".*.tmp")
    )


def _remove_abandoned(paths: Iterable[Path]) -> None:
    for path in list(paths):
        mark = _marked(path, wait=False)
        if mark is None:  # somebody writes it, or nobody can tell
            continue
        _remove(path)
        os.close(mark)


def _remove(path: Path) -> None:
    """Delete a file or folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_with(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file atomically through a function that gets an open binary file."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write(file)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_with(path, lambda file: file.write(content))


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented; the text is never whole in memory."""

    def write(file: IO[bytes]) -> None:
        parts = json.JSONEncoder(indent=1).iterencode(content)
        while text := "".join(itertools.islice(parts, _JSON_PARTS)):
            file.write(text.encode())
        file.write(b"\n")

    write_with(path, write)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: Missing or invalid; the message names the file and, for invalid JSON, line and
            column.
    """
    try:
        check_regular(path)
        return parse_json(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist.") from error
    except OSError as error:
        raise StorageError(f"{path} is not readable JSON: {error}") from error


def parse_json(content: bytes | str, source: object) -> Any:
    """Parse JSON: UTF-8, or UTF-16 and UTF-32 with or without their mark at the start.

    Args:
        content: The text.
        source: Where it is from, for messages.

    Raises:
        StorageError: Invalid JSON, with line and column; another encoding; or an object that has a
            key twice.
    """
    text = _decode(content, source) if isinstance(content, bytes) else content
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{source} is not readable JSON: {error}") from error


def _decode(content: bytes, source: object) -> str:
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise StorageError(
            f"{source} is not readable JSON: {error}. Save it in the encoding UTF-8."
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{twice}' is given twice in one object; remove one of them.")
    return found


def check_regular(path: Path) -> None:
    """Refuse what would block or never end when it is opened (pipes, devices), and names that
    libraries cannot take.

    Raises:
        OSError: There is no such file, it is no regular file, or its name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        name = os.fsencode(path)
        raise OSError(f"the name {name!r} is not UTF-8; rename the file") from error
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no regular file but a folder, pipe, socket or device")


def digest(content: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON value (keys in any order)."""
    return hashlib.blake2b(_canonical(content).encode(), digest_size=8).hexdigest()


def digests_with(common: Mapping[str, Any], further: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield `digest({**common, **each})` of many objects; what they have in common is written once.

    Args:
        common: What all have.
        further: What each has besides, under the same keys, which follow each other in the alphabet
            without one of `common` between them.

    Raises:
        ValueError: A key of `common` is one of them or between them.
    """
    start, end = hashlib.blake2b(digest_size=8), b""
    for number, each in enumerate(further):
        if number == 0:
            before = {key: value for key, value in common.items() if key < min(each)}
            after = {key: value for key, value in common.items() if key > max(each)}
            if len(before) + len(after) < len(common):
                raise ValueError(f"a key of {list(common)} is among {list(each)}")
            start.update((_canonical(before)[:-1] + "," * bool(before)).encode())
            end = ("," * bool(after) + _canonical(after)[1:]).encode()
        state = start.copy()
        state.update(_canonical(each)[1:-1].encode())
        state.update(end)
        yield state.hexdigest()


def file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits that identify the content of a file."""
    state = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


class Digests:
    """Content digests of files that may be large, remembered while size and times of a file stay
    the same.

    Args:
        path: JSON file that keeps them from run to run, or None.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, list[Any]] | None = None

    def of(
        self, paths: Sequence[Path], further: Sequence[Sequence[Path]] | None = None
    ) -> list[str]:
        """Return 16 hexadecimal digits per file, or per folder for all of its files.

        Args:
            paths: Files and folders.
            further: Of each path, files that belong to it.

        Raises:
            OSError: A file cannot be read, or is no regular file.
        """
        if self._known is None:
            self._known = self._read()
        known, keys = self._known, list(map(str, paths))
        work = list(zip(keys, further or [()] * len(keys), map(known.get, keys), strict=True))
        # in chunks: a thread's task costs more than looking at one file that stayed the same
        size = min(max(1, len(work) // (4 * _HASHING_THREADS)), _CHUNK)
        chunks = [work[i : i + size] for i in range(0, len(work), size)]
        with ThreadPoolExecutor(_HASHING_THREADS) as threads:
            found = threads.map(lambda chunk: [self._row(*each) for each in chunk], chunks)
            rows = dict(zip(keys, itertools.chain.from_iterable(found), strict=True))
        changed = any(known.get(key) != row for key, row in rows.items())
        known.update(rows)
        if self._path is not None and changed:
            _remove_abandoned(self._path.parent.glob(f".{glob.escape(self._path.name)}.*.tmp"))
            with contextlib.suppress(StorageError):  # a read-only disk: the next run reads again
                write_json(self._path, known)
        return [rows[key][-1] for key in keys]

    def _read(self) -> dict[str, list[Any]]:
        try:
            known = read_json(self._path) if self._path is not None else {}
        except StorageError:
            return {}
        return known if isinstance(known, dict) else {}

    @staticmethod
    def _row(name: str, further: Sequence[Path], known: Any) -> list[Any]:
        status = os.stat(name)  # noqa: PTH116 - of many files: a Path takes as long as the system
        if not further and stat.S_ISREG(status.st_mode):
            match known:
                case [[before], str()] if before == _state(status):
                    return known
        path = Path(name)
        # a folder counts as one image
        is_folder = stat.S_ISDIR(status.st_mode)
        parts = sorted(p for p in path.iterdir() if p.is_file()) if is_folder else [path, *further]
        for part in parts:
            check_regular(part)
        states = [_state(part.stat()) for part in parts]
        match known:
            case [before, str()] if before == states:
                return known
        digests = [file_digest(part) for part in parts]
        joined = is_folder or bool(further)
        return [states, digest([[p.name for p in parts], digests]) if joined else digests[0]]


def _state(status: os.stat_result) -> list[int]:
    """Return what changes when a file is written."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(path) from error
        raise StorageError(f"{path} cannot be written: {error}") from error
    except (RuntimeError, ValueError) as error:  # of PyTorch or NumPy, which hide the system's
        if isinstance(error.__context__, OSError) and error.__context__.errno in _FULL:
            raise _no_space(path) from error
        raise


def _no_space(path: Path) -> StorageError:
    return StorageError(
        f"No space left while writing {path}. Nothing half written is kept: free some space, then "
        "run the same command again; what is finished is kept."
    )
