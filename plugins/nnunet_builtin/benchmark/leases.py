"""The lease of a job: a lock that the kernel keeps for as long as the worker or the command that it
started lives.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from nnunet_builtin.benchmark.records import LEASE

#: Somebody who only looks holds the lock for less than that.
_PATIENCE = 1.0
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class LeasedError(Exception):
    """Somebody else does the job."""


@contextlib.contextmanager
def leased(folder: Path) -> Iterator[int]:
    """Hold the lease of a job while the block runs; yield its file descriptor.

    A process that inherits the descriptor holds the lease, too, also when this one is killed. A
    file system without locks grants it to everybody.

    Raises:
        LeasedError: Somebody else holds it.
    """
    with (folder / LEASE).open("a") as file:
        end = time.monotonic() + _PATIENCE
        while not _locked(file.fileno()):
            if time.monotonic() > end:
                raise LeasedError
            time.sleep(_PATIENCE / 20)
        yield file.fileno()


def is_leased(folder: Path) -> bool:
    """Return whether somebody does the job now."""
    path = folder / LEASE
    if not path.is_file():  # also where something else is there: a pipe would block
        return False
    with path.open() as file:
        return not _locked(file.fileno())


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True
