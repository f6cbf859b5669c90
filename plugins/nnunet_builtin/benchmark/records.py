"""What lies in the folder of a job: what it is, what ended it, who runs it now, and its log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from nnunet_core.contracts.executor import LOG
from nnunet_core.errors import StorageError
from nnunet_core.runtime import files

JOB, BEGAN, ENDED, HANDLES, LEASE = "job.json", "began.json", "ended.json", "handles.json", ".lease"
#: Exit codes of wrong input: another try would end the same way.
_WRONG_INPUT = 2
#: 128 + SIGKILL: of a job that left no exit code.
KILLED = 137
#: 128 + SIGINT, SIGTERM: somebody stopped it, a batch system for example.
STOPPED = (130, 143)
_Record = TypeVar("_Record", bound=files.Document)


class JobFile(files.Document):
    """What a job is.

    Attributes:
        name: Of the job.
        identity: Digest of all that decides what it makes.
        inputs: Digest of the runs of the jobs that it needs.
        parts: {what decides what it makes: digest}.
        words: What follows `nnunet`.
        environment: Variables that it sets.
        makes: A folder that is set aside before another job of this name is run, or None.
    """

    schema_version: Literal[1] = 1
    name: str
    identity: str
    inputs: str
    parts: dict[str, str]
    words: tuple[str, ...]
    environment: dict[str, str]
    makes: str | None = None


class Began(files.Document):
    """That a job was begun.

    Attributes:
        identity: Of the job.
        tries: How often, tries that were killed included.
        parts: As in JobFile.
    """

    schema_version: Literal[1] = 1
    identity: str
    tries: Annotated[int, Field(ge=1)]
    parts: dict[str, str]


class Ended(files.Document):
    """How the last try of a job ended, and what all of its tries cost.

    Attributes:
        identity, inputs: Of the job that was run.
        run: Names what this run made: a later run of the job has another.
        code: Exit code; 128 + n where the signal n ended it.
        attempts: How often this job failed or was done, this time included; a try that somebody
            stopped does not count.
        stops: How often somebody stopped it.
        seconds, cpu_seconds: Of all tries that left a record, with all their processes.
        gpu_seconds: Seconds times cards.
        uncounted: Tries that were killed and left no record of their cost.
        peak_memory: Largest resident set of one of its processes, bytes.
        host: Where it ran.
        processor: Model of its CPU.
        finished: When, ISO 8601.
        reason: Of a job whose driver gave it up, since its tries left no result: why.
    """

    schema_version: Literal[1] = 1
    identity: str
    inputs: str = ""
    run: str = ""
    code: int
    attempts: Annotated[int, Field(ge=0)] = 1
    stops: Annotated[int, Field(ge=0)] = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    uncounted: Annotated[int, Field(ge=0)] = 0
    peak_memory: int = 0
    host: str = ""
    processor: str = ""
    finished: str = ""
    reason: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the job is done."""
        return self.code == 0

    @property
    def is_hopeless(self) -> bool:
        """Whether another try would end the same way."""
        return self.code == _WRONG_INPUT

    @property
    def is_stopped(self) -> bool:
        """Whether somebody stopped it, which is no failure."""
        return self.code in STOPPED


class Handles(files.Document):
    """Deliveries of a job that may still run.

    Attributes:
        handles: Of the executor.
        executor: Its reference; handles of another one mean nothing.
    """

    schema_version: Literal[1] = 1
    executor: str
    handles: tuple[str, ...]


def read(kind: type[_Record], path: Path) -> _Record | None:
    """Return a record; None where there is none, or a damaged one, which says nothing."""
    if not path.is_file():
        return None
    try:
        return kind.read(path)
    except StorageError:
        return None


def ended(folder: Path, identity: str) -> Ended | None:
    """Return how a job ended; None if it has not, or another one of this name did."""
    found = read(Ended, folder / ENDED)
    return found if found is not None and found.identity == identity else None


def handles(folder: Path, executor: str) -> tuple[str, ...]:
    """Return the deliveries by an executor that may still run."""
    found = read(Handles, folder / HANDLES)
    return found.handles if found is not None and found.executor == executor else ()


def log_tail(folder: Path, lines: int = 15) -> list[str]:
    """Return the last lines of a job's log."""
    path = folder / LOG
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        return file.read().decode(errors="replace").splitlines()[-lines:]
