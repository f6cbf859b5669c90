"""Where the jobs of a benchmark run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

LOG = "log.txt"


@dataclass(frozen=True)
class Resources:
    """What a job needs.

    Attributes:
        gpus: Whole cards; 0 hides all of them from the job.
        cpus: Cores.
        memory: Main memory, bytes.
        seconds: Time limit, where the executor has one.
    """

    gpus: int = 0
    cpus: int = 1
    memory: int = 4_000_000_000
    seconds: int = 86_400


@dataclass(frozen=True)
class Task:
    """One delivery of a job. It may be delivered twice, at once or one after the other: the second
    finds the lease of the first in `folder`, or its result, and ends without work.

    Attributes:
        name: Of the job, for people.
        command: Words of the command, to be run without a shell; exit code 0 means done.
        environment: Variables beside those of this process; `CUDA_VISIBLE_DEVICES` is the
            executor's to set, empty for a job without GPU.
        folder: Of the job, on a file system that all workers share; what the command prints goes
            to `log`.
        resources: What it needs.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)

    @property
    def log(self) -> Path:
        """Return the file that everything that the command prints is appended to."""
        return self.folder / LOG


class Executor(Protocol):
    """Runs tasks somewhere. It keeps no state that matters: results and leases lie in the folders
    of the jobs, and a handle is all that is needed to find a running task again.

        class OneAfterTheOther:
            def check(self, needed):
                pass

            def has_room(self, resources, running):
                return not running

            def start(self, task, running):
                process = subprocess.Popen(task.command, env={**os.environ, **task.environment})
                return str(process.pid)

            def running(self, handles):
                return {handle for handle in handles if psutil.pid_exists(int(handle))}

            def stop(self, handles):
                for handle in handles:
                    os.kill(int(handle), signal.SIGTERM)
    """

    def check(self, needed: Sequence[Resources]) -> None:
        """Refuse what can never run here, before any job starts.

        Raises:
            UsageError: No machine is large enough, the cluster cannot be reached, or a package is
                missing; the message names it.
        """
        ...

    def has_room(self, resources: Resources, running: Mapping[str, Resources]) -> bool:
        """Return whether a task may be started now, beside those that run: {handle: resources}."""
        ...

    def start(self, task: Task, running: Sequence[str]) -> str:
        """Start a task, or hand it to a queue; return a handle, a text that is valid in another
        process, too.

        Args:
            task: What to run.
            running: Handles of those that run.

        Raises:
            NnunetError: It could not be started.
        """
        ...

    def running(self, handles: Sequence[str]) -> set[str]:
        """Return those whose tasks run or wait in a queue; the others ended, however they did."""
        ...

    def stop(self, handles: Sequence[str]) -> None:
        """Ask tasks to stop where they can save their work; return when they ended."""
        ...
