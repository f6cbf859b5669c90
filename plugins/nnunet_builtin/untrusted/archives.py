"""Unpacking of zip and tar.gz from anywhere: only plain files, only below the new folder, all or
nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nnunet_core.errors import StorageError, UsageError
from nnunet_core.runtime.files import atomic_folder, temporary_folder
from nnunet_core.runtime.names import below, is_plain

_BLOCK = 1 << 20  # bytes read at once
_DIRECTORY = 1 << 24  # bytes of a zip's list of entries, which is read at once
_HEADERS = 1 << 20  # bytes between the contents of two entries of a tar
_NAME, _PATH, _DEPTH = 255, 1024, 32  # bytes of a name, of a path; folders in each other
# bzip2 and LZMA: a few bytes of these fill the memory before anybody can count
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_UTF8 = 0x800
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
)


@dataclass(frozen=True)
class Limits:
    """How large an archive may become.

    Attributes:
        entries: Files and folders.
        size: Bytes of all files together.
        ratio: Bytes of all files for each byte of the archive; weights reach 1.2, text 20, a bomb
            1000.
        always: Bytes that are allowed at any ratio.
    """

    entries: int = 100_000
    size: int = 100 << 30
    ratio: int = 100
    always: int = 64 << 20

    def bytes_of(self, archive: Path) -> int:
        """Return how many bytes may come out of an archive."""
        return min(self.size, max(self.always, self.ratio * archive.stat().st_size))


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> None:
    """Unpack a zip or tar.gz, told apart by their first bytes, to a new folder.

    Entries are plain files and folders; their permissions, owners and times are left out. The
    folder is there whole, or not at all.

    Args:
        archive: The file.
        folder: What to make.
        limits: How large it may become.

    Raises:
        UsageError: There is no such file, or it is no zip or tar.gz.
        StorageError: The folder exists; the archive is damaged or encrypted, breaks a limit, or has
            an entry that is no plain file, would lie elsewhere, or cannot be told from another one.
    """
    _kind(archive)  # before a folder is made
    with atomic_folder(folder) as temporary:
        extract(archive, temporary, limits)


@contextlib.contextmanager
def unpacked(archive: Path, beside: Path, limits: Limits | None = None) -> Iterator[Path]:
    """Yield a folder with what is in an archive; it is removed when the block ends.

    Args:
        archive: The file.
        beside: File or folder beside which it lies: a place on a disk with space.
        limits: How large it may become.

    Raises:
        UsageError, StorageError: As of `unpack`.
    """
    _kind(archive)
    with temporary_folder(beside) as folder:
        extract(archive, folder, limits)
        yield folder


def extract(archive: Path, folder: Path, limits: Limits | None = None) -> None:
    """Unpack an archive into an empty folder, which is the caller's to remove when this fails.

    Raises:
        UsageError, StorageError: As of `unpack`.
    """
    unpacker = _Unpacker(archive, folder, limits or Limits())
    unpack_kind = unpacker.zip if _kind(archive) == "zip" else unpacker.tar
    try:
        unpack_kind()
        if not unpacker.entries:
            raise EOFError("it holds no file")
    except _DAMAGE as error:
        raise StorageError(
            f"{archive} is damaged, and nothing of it was kept: {error}. Get an intact copy: "
            "compare its size and digest with those where it comes from."
        ) from error
    except OSError as error:
        raise StorageError(
            f"{archive} cannot be unpacked beside {folder}, and nothing of it was kept: {error}."
        ) from error


def _kind(archive: Path) -> str:
    """Return `zip` or `tar.gz`, by the first bytes of a file."""
    try:
        with archive.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UsageError(
            f"{archive} cannot be read: {error.strerror}. Name an archive that is there and that "
            "you may read."
        ) from error
    if start in {b"PK\x03\x04", b"PK\x05\x06"}:
        return "zip"
    if start[:2] == b"\x1f\x8b":
        return "tar.gz"
    raise UsageError(
        f"{archive} is no zip and no tar.gz: it begins with {start!r}. Name the archive of a model."
    )


@dataclass
class _Unpacker:
    """One archive on its way into a folder.

    Attributes:
        seen: {path as file systems without upper case see it: (path, whether it is a file)}.
        entries, written: So far; the second in bytes.
    """

    archive: Path
    folder: Path
    limits: Limits
    seen: dict[str, tuple[str, bool]] = field(default_factory=dict)
    entries: int = 0
    written: int = 0

    def zip(self) -> None:
        with _Listed(self.archive.open("rb", buffering=0)) as file, zipfile.ZipFile(file) as opened:
            found = opened.infolist()
            self._check_count(len(found))
            self._check_size(sum(info.file_size for info in found))
            self._check_space(sum(info.file_size for info in found))
            for info in found:
                name = self._zip_name(info)
                if name.endswith("/"):
                    self._make(name, is_file=False).mkdir(parents=True, exist_ok=True)
                else:
                    with opened.open(info) as content:
                        self._write(name, content, info.file_size)

    def tar(self) -> None:
        with gzip.open(self.archive) as content:
            counted = _Counted(content, self)
            # "r|" reads forward only, so that what is read is what is counted
            with tarfile.open(fileobj=counted, mode="r|", bufsize=10 * tarfile.BLOCKSIZE) as opened:
                for info in opened:
                    self._check_count(self.entries + 1)
                    if info.isdir():
                        path = self._make(info.name, is_file=False)
                        path.mkdir(parents=True, exist_ok=True)
                    elif info.isreg() and not info.issparse():
                        counted.allowed = info.size + _HEADERS
                        self._check_size(self.written + info.size)
                        with opened.extractfile(info) as file:  # type: ignore[union-attr]
                            self._write(info.name, file, info.size)
                    else:
                        raise self._refused(info.name, "it is a link, a device or a pipe")
                    counted.allowed = _HEADERS
            while rest := counted.read(_BLOCK):  # to the checksum at the end
                if any(rest):
                    raise tarfile.ReadError("its list of files ends in the middle")

    def _zip_name(self, info: zipfile.ZipInfo) -> str:
        """Return the name of an entry that may be unpacked."""
        # not `filename`, which ends at a zero byte
        name = info.orig_filename
        if not info.flag_bits & _UTF8 and not name.isascii():
            try:
                name = name.encode("cp437").decode()  # zipfile's guess of what is no ASCII
            except UnicodeError:
                raise self._refused(name, "its name is not UTF-8") from None
        if info.flag_bits & _ENCRYPTED:
            raise StorageError(
                f"{self.archive} is encrypted. Unpack it with its password, and name the folder or "
                "an archive without one."
            )
        if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise self._refused(name, "it is a link, a device or a pipe")
        if info.compress_type not in _METHODS:
            raise self._refused(
                name, f"its compression has number {info.compress_type}; allowed are 0 and 8"
            )
        return name

    def _write(self, name: str, content: IO[bytes], size: int) -> None:
        """Write a file; an archive may lie about its size (bytes)."""
        path, before = self._make(name, is_file=True), self.written
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            while block := content.read(_BLOCK):
                self.written += len(block)
                self._check_size(self.written)
                file.write(block)
        if self.written - before != size:
            raise EOFError(f"{name!r} has {self.written - before} bytes instead of {size}")

    def _make(self, name: str, is_file: bool) -> Path:
        """Return where an entry is written."""
        self.entries += 1
        parts = name.split("/")
        if parts[0] == ".":
            del parts[0]  # of `tar -c .`
        if not is_file and parts[-1:] == [""]:
            del parts[-1]
        odd = _problem(parts) if parts or is_file else ""
        if odd:
            raise self._refused(name, odd)
        for end in range(1, len(parts) + 1):
            self._claim("/".join(parts[:end]), is_file and end == len(parts))
        return below(self.folder, *parts)

    def _claim(self, path: str, is_file: bool) -> None:
        """Note a file or folder; refuse what takes the place of another one."""
        key = unicodedata.normalize("NFC", path).casefold()
        before = self.seen.get(key)
        if before is not None and (is_file or before != (path, is_file)):
            raise self._refused(path, f"it takes the place of {before[0]!r}")
        self.seen[key] = (path, is_file)

    def _refused(self, name: str, why: str) -> StorageError:
        return StorageError(
            f"{self.archive} is refused, and nothing of it was kept: its entry {name!r} cannot be "
            f"unpacked, since {why}. Allowed are plain files and folders below the new folder, "
            "each once. Ask whoever made it for another one."
        )

    def _check_count(self, entries: int) -> None:
        if entries > self.limits.entries:
            raise self._too_large(f"more than {self.limits.entries} files and folders")

    def _check_size(self, size: int) -> None:
        allowed = self.limits.bytes_of(self.archive)
        if size > allowed:
            raise self._too_large(f"more than the {allowed} bytes that its own size allows")

    def _check_space(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise StorageError(
                f"{self.archive} holds {size} bytes, but {self.folder.parent} has only {free} "
                "free. Free some space, then run the command again."
            )

    def _too_large(self, what: str) -> StorageError:
        return StorageError(
            f"{self.archive} is refused, and nothing of it was kept: it unpacks to {what}. No "
            "model is like that; an archive that fills the disk is. Ask who made it for another "
            "one."
        )


def _problem(parts: list[str]) -> str:
    """Say why a path cannot be written on every system; empty if it can."""
    for part in parts:
        if not is_plain(part) or ":" in part or part != part.rstrip(". "):
            return "it would lie elsewhere, or has a name that not every system can hold"
        if len(part.encode()) > _NAME:
            return f"its name has more than {_NAME} bytes"
    if len("/".join(parts).encode()) > _PATH or len(parts) > _DEPTH:
        return f"its path has more than {_PATH} bytes or {_DEPTH} folders"
    return "" if parts else "it has no name"


class _Listed(io.BufferedReader):
    """A zip, whose list of entries zipfile reads at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY:
            raise StorageError(
                f"{self.name} is refused: its list of entries has {size} bytes, more than the "
                f"{_DIRECTORY} that are allowed. No model is like that."
            )
        return super().read(size)


class _Counted(io.RawIOBase):
    """What comes out of a gzip; tarfile reads headers of any length at once.

    Attributes:
        allowed: Bytes that may be read until it is set again.
    """

    def __init__(self, content: gzip.GzipFile, unpacker: _Unpacker) -> None:
        self._content, self._unpacker, self.allowed = content, unpacker, _HEADERS

    def read(self, size: int = -1, /) -> bytes:
        block = self._content.read(size)
        self.allowed -= len(block)
        if self.allowed < 0:
            raise self._unpacker._too_large("names and headers of more bytes than files have")
        return block
