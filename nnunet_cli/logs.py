"""The log of a command: everything that it prints, in a file beside its results."""

from __future__ import annotations

import contextlib
import datetime
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

#: In the results of a dataset.
FOLDER = "logs"
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Copied:
    """A stream whose text goes into a log, too, without colours.

    Attributes:
        stream: What it stands for.
        log: An open file; a disk that is full costs the log, not the work.
    """

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self.stream, self.log = stream, log

    def write(self, text: str) -> int:
        """Write to both."""
        written = self.stream.write(text)
        with contextlib.suppress(OSError):
            self.log.write(_TERMINAL_CODES.sub("", text))
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def streams_restored() -> Iterator[None]:
    """End with the block the log that a command in it has started."""
    streams = sys.stdout, sys.stderr
    try:
        yield
    finally:
        log = getattr(sys.stderr, "log", None)
        sys.stdout, sys.stderr = streams
        if log is not None:
            with contextlib.suppress(OSError):
                log.close()


def start_log(folder: Path, command: str) -> Path | None:
    """Copy what is printed from now on into `folder/DATE_COMMAND.log`; return that file, or None
    where it cannot be written.
    """
    path = folder / f"{datetime.datetime.now():%Y%m%d-%H%M%S}_{command}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError:  # finished results may lie on a read-only disk
        return None
    log.write(f"{shlex.join(['nnunet', *sys.argv[1:]])}\n")
    sys.stdout = cast("TextIO", Copied(sys.stdout, log))
    sys.stderr = cast("TextIO", Copied(sys.stderr, log))
    return path
