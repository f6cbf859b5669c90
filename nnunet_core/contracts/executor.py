"""Where the jobs of a benchmark run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

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
        environment: Variables beside those of the worker and those of this process that
            configure nnU-Net (`NNUNET_...`, `nnUNet_...`); `CUDA_VISIBLE_DEVICES` is the executor's
            to set, empty for a job without GPU.
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


@dataclass(frozen=True)
class Status:
    """What an executor knows of a delivery.

    Attributes:
        state: `waiting` for room, `running`, or `ended`, however it did.
        reason: Why it waits or ended, for people: "OUT_OF_MEMORY"; empty where nothing is known.
        is_lost: It ended through no fault of the job: preempted, its machine died. It is delivered
            again, and does not count as a failure.
    """

    state: Literal["waiting", "running", "ended"]
    reason: str = ""
    is_lost: bool = False


class Executor(Protocol):
    """Runs tasks somewhere. It keeps no state that matters: results and leases lie in the folders
    of the jobs, and a handle is all that is needed to find a running task again.

        class OneAfterTheOther:
            def check(self, needed):
                pass

            def start(self, tasks, running):
                if running or not tasks:
                    return {}
                environment = {**os.environ, **tasks[0].environment, "CUDA_VISIBLE_DEVICES": ""}
                with tasks[0].log.open("ab") as log:
                    process = subprocess.Popen(
                        tasks[0].command, env=environment, stdout=log, stderr=log,
                        start_new_session=True,  # it outlives this process
                    )
                return {tasks[0].name: str(process.pid)}

            def look(self, handles):
                alive = {h for h in handles if psutil.pid_exists(int(h))}
                return {h: Status("running" if h in alive else "ended") for h in handles}

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

    def start(self, tasks: Sequence[Task], running: Mapping[str, Resources]) -> dict[str, str]:
        """Start tasks, or hand them to a queue: as many as there is room for now, the first ones
        first.

        Args:
            tasks: What can run, in order.
            running: {handle: what it needs} of those that run or wait.

        Returns:
            {name of task: handle} of those that were started; a handle is a text that is valid in
            another process, too.

        Raises:
            NnunetError: The first of them could not be started; none was.
        """
        ...

    def look(self, handles: Sequence[str]) -> dict[str, Status]:
        """Return what is known of each of these. While a cluster does not answer, nothing of it
        has ended.
        """
        ...

    def stop(self, handles: Sequence[str]) -> None:
        """Ask tasks to stop where they can save their work; return when they ended."""
        ...
