"""Folders of entries: files whose names begin with that of their entry, and a record that is
written last.

An entry exists when its record does and its files have the recorded sizes; what an interrupted
writer leaves is not trusted, and replaced by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from nnunet_core.errors import StorageError
from nnunet_core.runtime import files
from nnunet_core.runtime.collecting import collector_rests
from nnunet_core.runtime.names import PlainName, below

RECORD = ".json"
#: Where a store keeps what it knows of its records, so that a rerun needs not read each of them.
KNOWN = ".known.json"
#: A file of an entry, or what a killed writer leaves of one.
_FILE = re.compile(
    r"\.?(?P<name>.+?)"
    r"(\.images\.b2nd|\.label\.b2nd|\.locations\.npz|\.array\.[a-z0-9_]+\.b2nd|\.json)(\..*\.tmp)?"
)
#: Of an entry: size and times of its record's file; its key; ends of names and sizes of its files.
Known = tuple[tuple[int, int, int], str, tuple[tuple[str, int], ...]]
_KNOWN: TypeAdapter[dict[str, Known]] = TypeAdapter(dict[str, Known])


class EntryRecord(files.Document):
    """The record of what a store holds under one name.

    Attributes:
        key: Digest of everything that it was computed from.
        files: {end of the file's name: (bytes, digest of its content)}.
    """

    key: str
    files: dict[PlainName, tuple[int, str]]

    def known(self, status: os.stat_result) -> Known:
        """Return what a store remembers of it, given the state of its file."""
        sizes = tuple((part, size) for part, (size, _) in self.files.items())
        return _state(status), self.key, sizes


@dataclass(frozen=True)
class EntryStore:
    """A folder of entries.

    Attributes:
        folder: Created by the first write.
        keys: {name: digest of everything that the entry was computed from}.
    """

    folder: Path
    keys: Mapping[str, str] = field(default_factory=dict)
    _record: ClassVar[type[EntryRecord]] = EntryRecord

    def is_current(
        self, name: str, key: str, verify: bool = False, known: dict[str, Known] | None = None
    ) -> bool:
        """Return whether an entry is complete and was computed from the inputs of `key`; `verify`
        reads its files. A record is not read where `known` has it and its file is as it was then;
        what is read is added to it.
        """
        known = {} if known is None else known
        self._look(name, known)
        if name not in known or known[name][1] != key or not self._is_whole(name, known[name]):
            return False
        return not verify or not self._problems(name, self._read(name), verify)

    @collector_rests()
    def missing(self, verify: bool = False) -> dict[str, str]:
        """Return the part of `keys` whose entries are not current."""
        before = self._remembered()
        known = {name: before[name] for name in self.keys if name in before}
        missing = {
            name: key
            for name, key in self.keys.items()
            if not self.is_current(name, key, verify, known)
        }
        if known != before:
            self._keep(known)
        return missing

    def remember(self, known: Mapping[str, Known]) -> None:
        """Remember what `_write` returned of entries."""
        if known:
            self._keep({**self._remembered(), **known})

    def remove(self, *names: str) -> None:
        """Delete entries and what interrupted writers left of them, if anything; the folder is
        listed once.
        """
        if not self.folder.is_dir():
            return
        wanted = set(names)
        for name in names:  # without it the other files mean nothing
            self._path(name, RECORD).unlink(missing_ok=True)
        for name in self._files():
            if (found := _FILE.fullmatch(name)) and found["name"] in wanted:
                (self.folder / name).unlink(missing_ok=True)

    def _files(self) -> Iterable[str]:
        """Return the names of all files: texts, since paths of a hundred thousand take long."""
        return os.listdir(self.folder) if self.folder.is_dir() else ()  # noqa: PTH208

    def _path(self, name: str, part: str) -> Path:
        return below(self.folder, name + part)

    def _write(self, name: str, contents: Mapping[str, bytes], **fields: Any) -> Known:
        """Write the files of an entry and then its record, in the place of what was there; return
        what `remember` takes.
        """
        path = self._path(name, RECORD)
        before = self._record.read(path).files if path.is_file() else {}
        path.unlink(missing_ok=True)
        for part in before.keys() - contents:
            self._path(name, part).unlink(missing_ok=True)
        for part, content in contents.items():
            files.write_bytes(self._path(name, part), content)
        described = {
            part: (len(content), hashlib.blake2b(content, digest_size=8).hexdigest())
            for part, content in contents.items()
        }
        record = self._record(files=described, **fields)
        record.write(path)
        return record.known(path.stat())

    def _problems(
        self, name: str, record: EntryRecord, verify: bool = False
    ) -> list[tuple[Path, str]]:
        """Return (file, what is wrong with it) of the files of an entry."""
        problems = []
        for part, (size, digest) in record.files.items():
            path = self._path(name, part)
            if not path.is_file():
                problems.append((path, "it does not exist"))
            elif path.stat().st_size != size:
                problems.append((path, f"it has {path.stat().st_size} bytes instead of {size}"))
            elif verify and files.file_digest(path) != digest:
                problems.append((path, "its content is not what was written"))
        return problems

    def _read(self, name: str) -> EntryRecord:
        return self._record.read(self._path(name, RECORD))

    def _look(self, name: str, known: dict[str, Known]) -> None:
        """Bring up to date what is known of an entry."""
        try:
            status = os.stat(f"{self.folder}{os.sep}{name}{RECORD}")  # noqa: PTH116 - see `_files`
            if name not in known or known[name][0] != _state(status):
                known[name] = self._read(name).known(status)
        except (OSError, StorageError):
            known.pop(name, None)

    def _is_whole(self, name: str, known: Known) -> bool:
        """Return whether the files of an entry are there and have their sizes."""
        start = f"{self.folder}{os.sep}{name}"
        try:
            for part, size in known[2]:
                status = os.stat(start + part)  # noqa: PTH116 - see `_files`
                if status.st_size != size or not stat.S_ISREG(status.st_mode):
                    return False
        except OSError:
            return False
        return True

    def _remembered(self) -> dict[str, Known]:
        try:
            return _KNOWN.validate_json((self.folder / KNOWN).read_bytes())
        except (OSError, ValidationError):  # each record is read then
            return {}

    def _keep(self, known: Mapping[str, Known]) -> None:
        with contextlib.suppress(StorageError):  # a read-only disk
            files.write_bytes(self.folder / KNOWN, _KNOWN.dump_json(dict(known)))


def _state(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes when a file is written."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
