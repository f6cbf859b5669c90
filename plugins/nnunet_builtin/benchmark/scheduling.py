"""From a graph of jobs to results on disk: what is done is left alone, what can run is started."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nnunet_builtin.benchmark import records, work
from nnunet_builtin.benchmark.jobs import Graph, Job
from nnunet_core.contracts.executor import Executor, Resources, Status, Task
from nnunet_core.errors import NnunetError
from nnunet_core.registry.discovery import ALLOW_VARIABLE, DENY_VARIABLE
from nnunet_core.runtime import locks
from nnunet_core.runtime.reporting import Reporter

_POLL_SECONDS = 0.2
State = Literal["done", "running", "ready", "waiting", "failed", "blocked"]


@dataclass
class Board:
    """The state of every job, as it lies on disk; a driver may die at any moment.

    Attributes:
        graph: The jobs.
        root: Folder of the benchmark; jobs have theirs below `jobs/`.
        executor, reference: Where jobs run, and its name, which handles are of.
        retries: How often a failed job is tried again.
        environment: Variables of every job.
        done, failed: Names of jobs.
        running: {name of job: handles of its deliveries}.
    """

    graph: Graph
    root: Path
    executor: Executor
    reference: str
    retries: int
    environment: Mapping[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    running: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _lost: dict[str, int] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)

    def folder(self, job: Job) -> Path:
        """Return the folder of a job."""
        return self.root / "jobs" / job.name

    def look(self) -> None:
        """Read the state of all jobs, those that another driver has started included."""
        for job in self.graph.jobs.values():
            self._look_at(job)
        found = {
            job.name: records.handles(self.folder(job), self.reference) for job in self._open()
        }
        statuses = self.executor.look([h for handles in found.values() for h in handles])
        self.running = {
            name: kept
            for name, handles in found.items()
            if (kept := tuple(h for h in handles if statuses[h].state != "ended"))
        }

    def _open(self) -> Iterator[Job]:
        return (job for job in self.graph.jobs.values() if job.name not in self.done)

    def _look_at(self, job: Job) -> None:
        ended = records.ended(self.folder(job), job.identity)
        self.done.discard(job.name)
        self.failed.discard(job.name)
        if ended is None:
            return
        if ended.is_done:
            self.done.add(job.name)
        elif ended.is_hopeless or ended.attempts > self.retries:
            self.failed.add(job.name)

    def states(self) -> dict[str, State]:
        """Return {name: state} of every job."""
        blocked = self.graph.blocked_by(self.failed)
        ready = {job.name for job in self.graph.ready(self.done, self.failed | blocked)}

        def state(name: str) -> State:
            if name in self.done:
                return "done"
            if name in self.running:
                return "running"
            if name in self.failed:
                return "failed"
            return "blocked" if name in blocked else "ready" if name in ready else "waiting"

        return {name: state(name) for name in self.graph.jobs}

    def start(self, jobs: Sequence[Job]) -> None:
        """Write down what jobs are, and hand them to the executor, which starts as many as it has
        room for.

        Raises:
            NnunetError: The first of them could not be started.
        """
        running = {
            handle: needed(self.graph.jobs[name])
            for name, handles in self.running.items()
            for handle in handles
        }
        tasks = [self.task(job) for job in jobs]
        for job in jobs:
            if job.name not in self._written:  # they are offered until there is room for them
                self._write(job)
        for name, handle in self.executor.start(tasks, running).items():
            folder = self.folder(self.graph.jobs[name])
            records.Handles(executor=self.reference, handles=(handle,)).write(
                folder / records.HANDLES
            )
            self.running[name] = (handle,)

    def task(self, job: Job) -> Task:
        """Return a job for an executor."""
        folder = self.folder(job)
        return Task(job.name, work.command(folder), folder, {}, needed(job))

    def _write(self, job: Job) -> None:
        environment = {**self.environment, "nnUNet_results": str(job.results)}
        document = records.JobFile(
            name=job.name, identity=job.identity, words=job.words, environment=environment
        )
        document.write(self.folder(job) / records.JOB)
        self._written.add(job.name)

    def collect(self) -> list[tuple[Job, Status]]:
        """Return the jobs that ended since the last look, done or not, and what is known of it."""
        statuses = self.executor.look([h for handles in self.running.values() for h in handles])
        ended = []
        for name, handles in list(self.running.items()):
            job, last = self.graph.jobs[name], statuses[handles[-1]]
            if any(statuses[h].state != "ended" for h in handles) or self._is_leased(job):
                continue
            del self.running[name]
            self._look_at(job)
            if records.ended(self.folder(job), job.identity) is None and not last.is_lost:
                self._lose(job)
            ended.append((job, last))
        return ended

    def _is_leased(self, job: Job) -> bool:
        """Return whether an earlier delivery, whose handle was lost, works on a job."""
        return bool(locks.holder(self.folder(job) / records.LEASE))

    def _lose(self, job: Job) -> None:
        """Count a delivery that left no result: its worker was killed, or never began."""
        self._lost[job.name] = self._lost.get(job.name, 0) + 1
        if self._lost[job.name] > self.retries:
            self.failed.add(job.name)


def needed(job: Job) -> Resources:
    """Return what a job needs, in the units of executors."""
    table = job.resources
    return Resources(table.gpus, table.cpus, int(table.memory_gb * 1e9), int(table.hours * 3600))


def run(board: Board, report: Reporter) -> None:
    """Run what is not done until everything is done or cannot be.

    Ended by a signal, it asks the jobs to stop; a later run goes on.

    Raises:
        NnunetError: The executor cannot run one of the jobs at all; nothing was started.
    """
    board.look()
    open_jobs = [job for job in board.graph.jobs.values() if job.name not in board.done]
    board.executor.check([needed(job) for job in open_jobs])
    # a failed job has a new chance whenever somebody starts the benchmark again
    forgive(board, board.failed)
    try:
        while _step(board, report):
            time.sleep(_POLL_SECONDS)
    except BaseException:
        board.executor.stop([h for handles in board.running.values() for h in handles])
        raise


def forgive(board: Board, names: Sequence[str] | set[str]) -> None:
    """Forget how often these jobs failed."""
    for name in list(names):
        (board.folder(board.graph.jobs[name]) / records.ENDED).unlink(missing_ok=True)
        board.failed.discard(name)


def _step(board: Board, report: Reporter) -> bool:
    """Collect what ended and start what can run; return whether there is more to do."""
    for job, status in board.collect():
        _tell(board, job, status, report)
    blocked = board.graph.blocked_by(board.failed)
    ready = list(board.graph.ready(board.done, board.failed | blocked | set(board.running)))
    try:
        board.start(ready)
    except NnunetError as error:
        board.failed.add(ready[0].name)
        report.warning(f"{ready[0].name} could not be started: {error}")
    blocked = board.graph.blocked_by(board.failed)
    return bool(board.running) or any(board.graph.ready(board.done, board.failed | blocked))


def _tell(board: Board, job: Job, status: Status, report: Reporter) -> None:
    because = f" ({status.reason})" if status.reason else ""
    if job.name in board.done:
        report.message(f"done: {job.name} ({len(board.done)} of {len(board.graph.jobs)})")
    elif status.is_lost:
        report.message(f"interrupted: {job.name}{because}; it is started again")
    else:
        again = "it is tried again" if job.name not in board.failed else "it is given up"
        tail = "\n".join(f"    {line}" for line in records.log_tail(board.folder(job)))
        log = board.folder(job) / records.LOG
        report.warning(f"failed: {job.name}{because}; {again}. {log} ends:\n{tail}")


def environment_of(raw: Path, preprocessed: Path, deny: Sequence[str]) -> dict[str, str]:
    """Return the variables that make a job see what this process sees.

    Args:
        raw: Folder of the datasets.
        preprocessed: Folder of the prepared cases.
        deny: Names of plugins that are blocked.
    """
    found = {"nnUNet_raw": str(raw), "nnUNet_preprocessed": str(preprocessed)}
    found["NNUNET_WORKSPACE"] = ""  # it would come before the folders above
    found[DENY_VARIABLE] = ",".join(deny)
    if os.environ.get(ALLOW_VARIABLE):
        found[ALLOW_VARIABLE] = os.environ[ALLOW_VARIABLE]
    return found
