"""From a graph of jobs to results on disk: what is done is left alone, what can run is started."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nnunet_builtin.benchmark import records, work
from nnunet_builtin.benchmark.graph import SHARED, Graph, Job
from nnunet_builtin.benchmark.leases import is_leased
from nnunet_core.contracts.executor import Executor, Resources, Status, Task
from nnunet_core.errors import (
    NnunetError,
    PluginError,
    StoppedError,
    StorageError,
    counted,
    printable,
)
from nnunet_core.registry.discovery import ALLOW_VARIABLE, DENY_VARIABLE
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter

_POLL_SECONDS = 0.2
_OFFERED = 200
#: A job that is stopped so often never gets anywhere.
_MOST_STOPS = 100
#: A file in the folder of a benchmark that asks its driver to stop.
STOP = "stop"
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
        done: {name of job: its record}, of those that are done.
        failed: {name of job: why}, of those that failed for good.
        running: {name of job: handles of its deliveries}.
    """

    graph: Graph
    root: Path
    executor: Executor
    reference: str
    retries: int
    environment: Mapping[str, str] = field(default_factory=dict)
    done: dict[str, records.Ended] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _lost: Counter[tuple[str, bool]] = field(default_factory=Counter)
    _runs: dict[str, str] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)

    def folder(self, job: Job) -> Path:
        """Return the folder of a job."""
        return self.root / "jobs" / job.name

    def look(self) -> None:
        """Read the state of all jobs, those that another driver has started included."""
        for job in self.graph.jobs.values():  # in order: whether it is done depends on its needs
            self._look_at(job)
        left = [job for job in self.graph.jobs.values() if job.name not in self.done]
        found = {job.name: records.handles(self.folder(job), self.reference) for job in left}
        gone = self._gone(found)
        self.running = {name: handles for name, handles in found.items() if name not in gone}
        for name in gone:
            if found[name]:  # it may have ended since its record was looked for
                self._look_at(self.graph.jobs[name])

    def _gone(self, found: Mapping[str, Sequence[str]]) -> dict[str, Status]:
        """Return {name: what is known of its last delivery} of the jobs that do not run. One runs
        while the executor says so, or its lease is held: by a command that has lost its worker,
        or a delivery that nobody wrote down.
        """
        asked = [h for handles in found.values() for h in handles]
        statuses = self.executor.look(asked)
        if not _is_like(statuses, Status) or set(asked) - statuses.keys():
            raise self._broken("look", statuses)
        return {
            name: statuses[handles[-1]] if handles else Status("ended")
            for name, handles in found.items()
            if all(statuses[handle].state == "ended" for handle in handles)
            and not is_leased(self.folder(self.graph.jobs[name]))
        }

    def _broken(self, method: str, answer: object) -> NnunetError:
        return PluginError(
            f"The executor {self.reference} is broken: its method '{method}' returned "
            f"{printable(repr(answer)[:200])}. Use another one, or report it to its authors; "
            "'nnunet plugins check' finds such faults."
        )

    def _look_at(self, job: Job) -> None:
        self.done.pop(job.name, None)
        self.failed.pop(job.name, None)
        ended = records.ended(self.folder(job), job.identity)
        if ended is None:
            return
        if ended.is_done:
            if ended.inputs == self._inputs(job) and (job.output is None or job.output.is_file()):
                self.done[job.name] = ended
        elif ended.reason:
            self.failed[job.name] = ended.reason
        elif ended.is_hopeless or ended.attempts > self.retries:
            self.failed[job.name] = f"exit code {ended.code}"
        elif ended.stops > _MOST_STOPS:
            self.failed[job.name] = f"it was stopped {ended.stops} times"

    def _inputs(self, job: Job) -> str | None:
        """Return the digest of what the jobs that it needs have made; None if one is not done."""
        runs = []
        for name in job.needs:
            if name not in self.done:
                return None
            # plans and prepared cases are the same however often they are made
            same = self.graph.jobs[name].stage in SHARED
            runs.append("" if same else self.done[name].run)
        return files.digest(runs)

    def states(self) -> dict[str, State]:
        """Return {name: state} of every job."""
        blocked = self.graph.blocked_by(set(self.failed))
        ready = {job.name for job in self.graph.ready(self.done, blocked.union(self.failed))}

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
        offered = _first_of_each(jobs)
        for job in offered:
            if job.name not in self._written:  # they are offered until there is room for them
                self._write(job)
        handles = self.executor.start([self.task(job) for job in offered], running)
        if not _is_like(handles, str) or handles.keys() - {job.name for job in offered}:
            raise self._broken("start", handles)
        for name, handle in handles.items():
            path = self.folder(self.graph.jobs[name]) / records.HANDLES
            records.Handles(executor=self.reference, handles=(handle,)).write(path)
            self.running[name] = (handle,)
            self._written.discard(name)

    def task(self, job: Job) -> Task:
        """Return a job for an executor."""
        folder = self.folder(job)
        return Task(job.name, work.command(folder), folder, {}, needed(job))

    def _write(self, job: Job) -> None:
        folder = self.folder(job)
        log = folder / records.LOG
        if log.exists() and not log.is_file():
            raise StorageError(f"{log} is no file; remove it.")  # a pipe would block
        before = records.read(records.Ended, folder / records.ENDED)
        if before is not None and (before.is_done or before.identity != job.identity):
            (folder / records.ENDED).unlink()  # stale, or what it made is gone
            before = None
        self._runs[job.name] = "" if before is None else before.run
        threads = {"OMP_NUM_THREADS": str(job.resources.cpus)}
        environment = {**self.environment, "nnUNet_results": str(job.results), **threads}
        document = records.JobFile(
            name=job.name,
            identity=job.identity,
            inputs=self._inputs(job) or "",
            parts=dict(job.parts),
            words=job.command(),
            environment=environment,
            makes=None if job.makes is None else str(job.makes),
        )
        document.write(folder / records.JOB)
        self._written.add(job.name)

    def collect(self) -> list[tuple[Job, Status]]:
        """Return the jobs that ended since the last look, done or not, and what is known of it."""
        ended = [(self.graph.jobs[n], status) for n, status in self._gone(self.running).items()]
        for job, status in ended:
            del self.running[job.name]
            self._look_at(job)
            # what is done again makes what was made of it stale
            for name in self.graph.dependents[job.name]:
                if name not in self.running:
                    self._look_at(self.graph.jobs[name])
            record = records.ended(self.folder(job), job.identity)
            # one of an earlier try says nothing of this one, one of success made nothing
            before = self._runs.get(job.name)
            empty = record is None or record.is_done or record.run == before
            if empty and job.name not in self.done and job.name not in self.failed:
                self._lose(job, status)
        return ended

    def _lose(self, job: Job, status: Status) -> None:
        """Count a delivery that left no result: its worker was killed, or never began."""
        self._lost[job.name, status.is_lost] += 1
        number = self._lost[job.name, status.is_lost]
        because = f": {status.reason}" if status.reason else ""
        if status.is_lost and number > _MOST_STOPS:
            self.give_up(job, f"its machine took it back {number} times{because}")
        elif not status.is_lost and number > self.retries:
            told = because or ": killed, or never begun"
            self.give_up(job, f"its process ended without a result{told}")

    def give_up(self, job: Job, reason: str) -> None:
        """Write down that a job failed for good that did not say so itself: `status` and `report`
        are other processes.
        """
        self.failed[job.name] = reason
        folder = self.folder(job)
        nothing = records.Ended(identity=job.identity, code=records.KILLED, attempts=0)
        before = records.ended(folder, job.identity) or nothing
        record = before.model_copy(update={"code": records.KILLED, "reason": reason})
        with contextlib.suppress(StorageError):  # a full disk, which may be why it failed
            record.write(folder / records.ENDED)

    def stop(self) -> None:
        """Ask all jobs that run to save their work and stop; return when they have."""
        self.executor.stop([h for handles in self.running.values() for h in handles])

    def forgive(self) -> None:
        """Give jobs that failed a new chance."""
        for name in list(self.failed):
            (self.folder(self.graph.jobs[name]) / records.ENDED).unlink(missing_ok=True)
        self.failed.clear()
        self._lost.clear()


def _is_like(answer: object, kind: type) -> bool:
    """Return whether something is {text: of a kind}."""
    return isinstance(answer, Mapping) and all(
        isinstance(name, str) and isinstance(value, kind) for name, value in answer.items()
    )


def _first_of_each(jobs: Sequence[Job]) -> list[Job]:
    """Return the first jobs of each resource: what no executor starts at once need not be offered
    again and again.
    """
    numbers: Counter[Resources] = Counter()
    found = []
    for job in jobs:
        numbers[needed(job)] += 1
        if numbers[needed(job)] <= _OFFERED:
            found.append(job)
    return found


def needed(job: Job) -> Resources:
    """Return what a job needs, in the units of executors."""
    table = job.resources
    return Resources(table.gpus, table.cpus, int(table.memory_gb * 1e9), int(table.hours * 3600))


def check(board: Board) -> None:
    """Ask the executor whether it can run the jobs that are not done.

    Raises:
        NnunetError: It cannot, or is not there.
    """
    left = [job for job in board.graph.jobs.values() if job.name not in board.done]
    board.executor.check(sorted({needed(job) for job in left}, key=dataclasses.astuple))


def run(board: Board, report: Reporter) -> None:
    """Run what is not done until everything is done or cannot be.

    Ended by a signal or a file `stop`, it asks the jobs to stop; a later run goes on.

    Raises:
        NnunetError: The executor cannot run one of the jobs at all; nothing was started.
        StoppedError: Somebody asked to stop.
    """
    board.look()
    board.forgive()  # whenever somebody starts the benchmark again
    check(board)
    (board.root / STOP).unlink(missing_ok=True)
    try:
        while _step(board, report):
            if (board.root / STOP).exists():
                raise StoppedError("as asked; the same command goes on.", None)
            time.sleep(_POLL_SECONDS)
    except BaseException:
        if board.running:
            report.message(f"asking {counted(len(board.running), 'job')} to save all work and stop")
        board.stop()
        raise
    finally:
        (board.root / STOP).unlink(missing_ok=True)


def _step(board: Board, report: Reporter) -> bool:
    """Collect what ended and start what can run; return whether there is more to do."""
    for job, status in board.collect():
        _tell(board, job, status, report)
    if ready := _ready(board):
        try:
            board.start(ready)
        except NnunetError as error:
            board.give_up(ready[0], f"it could not be started: {error}")
            report.warning(f"{ready[0].name} could not be started: {error}")
    return bool(board.running or _ready(board))


def _ready(board: Board) -> list[Job]:
    blocked = board.graph.blocked_by(set(board.failed))
    return list(board.graph.ready(board.done, {*board.failed, *blocked, *board.running}))


def _tell(board: Board, job: Job, status: Status, report: Reporter) -> None:
    said = status.reason in board.failed.get(job.name, "")
    because = f" ({status.reason})" if status.reason and not said else ""
    ended = records.ended(board.folder(job), job.identity)
    if job.name in board.done:
        report.message(f"done: {job.name} ({len(board.done)} of {len(board.graph.jobs)})")
    elif job.name in board.failed:
        report.warning(f"failed for good{because}: {described(board, job)}")
    elif status.is_lost or (ended is not None and ended.is_stopped):
        report.message(f"interrupted: {job.name}{because}; it is started again")
    else:
        code = "" if ended is None else f", exit code {ended.code}"
        report.message(f"failed: {job.name}{because}{code}; it is tried again")


def described(board: Board, job: Job) -> str:
    """Return why a job failed, with the last lines of its log."""
    tail = "\n".join(f"    {line}" for line in records.log_tail(board.folder(job)))
    log = board.folder(job) / records.LOG
    return f"{job.name}: {board.failed.get(job.name, '')}. {log} ends:\n{tail}"


def environment_of(raw: Path, preprocessed: Path, deny: Iterable[str]) -> dict[str, str]:
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
