"""Locks between runs that share a workspace: a file that names host and process of who holds it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from filelock import SoftFileLock, Timeout

from nnunet_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nnunet_core.runtime.reporting import Reporter

NAME = ".lock"
_AT_ONCE_SECONDS = 0.5  # time enough to find out that the holder is dead
_POLL_SECONDS = 0.5


@contextlib.contextmanager
def held(path: Path, purpose: str, report: Reporter, wait: bool = True) -> Iterator[None]:
    """Hold a lock file while the block runs.

    A lock whose process on this host is gone is taken over. One of another host cannot be judged:
    the message says which file to delete if its process is gone.

    Args:
        path: The lock file, `.lock` in the folder that is locked or a name like it; its folder is
            created.
        purpose: What is done there, for messages.
        report: Told when there is somebody to wait for.
        wait: Wait until the lock is free, instead of raising.

    Raises:
        StorageError: Somebody else holds the lock and `wait` is false, or the folder cannot be
            written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = SoftFileLock(path)
        try:
            lock.acquire(timeout=_AT_ONCE_SECONDS, poll_interval=0.05)
        except Timeout:
            occupied = f"{_holder(path)} is busy with {purpose}"
            advice = f"If that process is gone, delete {path}"
            if not wait:
                raise StorageError(
                    f"{occupied} ({path.parent}). Let it finish, or stop it. {advice}."
                ) from None
            report.message(f"waiting: {occupied}. {advice}.")
            lock.acquire(poll_interval=_POLL_SECONDS)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Return "process 123 on host" of a lock file."""
    try:
        process, host, *_ = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return "another process"
    return f"process {process} on {host}"
