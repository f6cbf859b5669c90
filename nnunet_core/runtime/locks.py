"""Locks between runs that share a workspace, kept by the kernel: they end with their process."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from nnunet_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nnunet_core.runtime.reporting import Reporter

NAME = ".lock"
_POLL_SECONDS = 0.5
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextlib.contextmanager
def held(path: Path, purpose: str, report: Reporter, wait: bool = True) -> Iterator[None]:
    """Hold a lock file while the block runs.

    What is in the file only names the holder: an empty file, one of a process that is gone, or of a
    number that another process has now, locks nothing. A file system that keeps locks between hosts
    (NFS, Lustre, BeeGFS) keeps these too.

    Args:
        path: The lock file, `.lock` in the folder that is locked or a name like it; its folder is
            created. It is removed in the end.
        purpose: What is done there, for messages.
        report: Told when there is somebody to wait for, or when the file system has no locks.
        wait: Wait until the lock is free, instead of raising.

    Raises:
        StorageError: Somebody else holds the lock and `wait` is false, or the folder cannot be
            written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, fallback_to_soft=False, poll_interval=_POLL_SECONDS)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            occupied = f"{_holder(path)} is busy with {purpose}"
            if not wait:
                raise StorageError(
                    f"{occupied} ({path.parent}). Let it finish, or stop it."
                ) from None
            report.message(f"waiting: {occupied} ({path.parent}).")
            lock.acquire()
        path.write_text(f"{os.getpid()}\n{platform.node()}\n", encoding="utf-8")
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise StorageError(f"{path} cannot be written: {error}") from error
        report.warning(
            f"the file system of {path.parent} has no locks: never start two runs on it at once"
        )
        yield
        return
    try:
        yield
    finally:
        # in this order: who waits for the removed file sees that, and takes a new one
        path.unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> str:
    """Return who holds a lock file, "process 123 on host"; empty if nobody does."""
    if not path.is_file():
        return ""
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return _holder(path)
    lock.release()
    return ""


def _holder(path: Path) -> str:
    """Return "process 123 on host" of a lock file."""
    try:
        process, host, *_ = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return "another process"
    return f"process {process} on {host}"
