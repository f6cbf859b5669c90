"""What lies in the folder of a job: what it is, what ended it, who runs it now, and its log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from nnunet_core.contracts.executor import LOG
from nnunet_core.errors import StorageError
from nnunet_core.runtime import files

JOB, ENDED, HANDLES, LEASE = "job.json", "ended.json", "handles.json", ".lease"
#: Exit codes of wrong input: another try would end the same way.
_WRONG_INPUT = 2


class JobFile(files.Document):
    """What a job is.

    Attributes:
        name: Of the job.
        identity: Digest of all that decides what it makes.
        words: What follows `nnunet`.
        environment: Variables that it sets.
    """

    schema_version: Literal[1] = 1
    name: str
    identity: str
    words: tuple[str, ...]
    environment: dict[str, str]


class Ended(files.Document):
    """How the last try of a job ended, and what it cost.

    Attributes:
        identity: Of the job that was run.
        code: Exit code; 128 + n where the signal n ended it.
        attempts: How often this job was tried, this time included.
        seconds, cpu_seconds: Of this try, with all its processes.
        gpu_seconds: Seconds times cards.
        peak_memory: Largest resident set of one of its processes, bytes.
        host: Where it ran.
        finished: When, ISO 8601.
    """

    schema_version: Literal[1] = 1
    identity: str
    code: int
    attempts: Annotated[int, Field(ge=1)] = 1
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_memory: int = 0
    host: str = ""
    finished: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the job is done."""
        return self.code == 0

    @property
    def is_hopeless(self) -> bool:
        """Whether another try would end the same way."""
        return self.code == _WRONG_INPUT


class Handles(files.Document):
    """Deliveries of a job that may still run.

    Attributes:
        handles: Of the executor.
        executor: Its reference; handles of another one mean nothing.
    """

    schema_version: Literal[1] = 1
    executor: str
    handles: tuple[str, ...]


def ended(folder: Path, identity: str) -> Ended | None:
    """Return how a job ended; None if it has not, or another one of this name did."""
    path = folder / ENDED
    if not path.is_file():
        return None
    try:
        found = Ended.read(path)
    except StorageError:  # half a disk's worth of damage is no result
        return None
    return found if found.identity == identity else None


def handles(folder: Path, executor: str) -> tuple[str, ...]:
    """Return the deliveries by an executor that may still run."""
    path = folder / HANDLES
    if not path.is_file():
        return ()
    found = Handles.read(path)
    return found.handles if found.executor == executor else ()


def log_tail(folder: Path, lines: int = 15) -> list[str]:
    """Return the last lines of a job's log."""
    path = folder / LOG
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        return file.read().decode(errors="replace").splitlines()[-lines:]
