"""What the executors of Slurm share: asking it, queueing, looking, stopping. Its commands do it."""

from __future__ import annotations

import contextlib
import math
import os
import re
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from nnunet_builtin.executors.launching import grouped
from nnunet_core.contracts.executor import Resources, Status, Task
from nnunet_core.errors import NnunetError, UsageError

_ANSWER_SECONDS = 60
_RUNNING = {"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING"}
_ENDED = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE"}
#: Ended through no fault of the job.
_LOST = {"PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED"}
_FROM_SLURM = re.compile(r"(slurmstepd|srun)\S*: error: ")
_SHOWN = 4
#: Job ids of one question, so that its command line stays short.
_ASKED_AT_ONCE = 500


class SlurmError(NnunetError):
    """Slurm refused, or did not answer."""


@dataclass(frozen=True)
class SlurmQueue(ABC):
    """An executor that hands jobs to Slurm. It asks `squeue`, and `sacct` of what that has
    forgotten, where there is accounting.

    Args:
        partition, account: As sbatch takes them; None leaves the default of the cluster.
        options: Other long options of sbatch, without dashes: `{"qos": "long"}`.
        setup: Lines of bash before each job: `("module load cuda",)`.
        gres: Name of the cards, with their type if one is wanted: `gpu`, `gpu:a100`.
        parallel: How many jobs of an array may run at once; 0 leaves that to Slurm.
        array_size: Most jobs of one array; clusters allow 1001 unless told otherwise.
        max_jobs: Most jobs that wait or run at once.
        restarts: How often a job goes on in another time slot after its time limit.
        grace_seconds: Before the time limit, a job is asked to save its work and stop.
        poll_seconds: Slurm is asked at most so often.
    """

    partition: str | None = None
    account: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    gres: str = "gpu"
    parallel: int = 0
    array_size: int = 1000
    max_jobs: int = 1000
    restarts: int = 20
    grace_seconds: int = 120
    poll_seconds: float = 10.0
    _answers: dict[str, tuple[float, Status]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def check(self, needed: Sequence[Resources]) -> None:
        """Let Slurm say whether jobs like these could ever start.

        Raises:
            UsageError: It could not, Slurm does not answer, or is not installed.
        """
        for each in dict.fromkeys(needed):
            options = [f"--{text}" for text in self.flags(each)]
            try:
                ask(["sbatch", "--test-only", *options, "--wrap", "true"])
            except SlurmError as error:
                _reach()
                raise UsageError(
                    f"Slurm takes no job with {' '.join(options)}: {error} Change 'resources' or "
                    "the settings of the executor, or ask who runs the cluster."
                ) from error

    def start(self, tasks: Sequence[Task], running: Mapping[str, Resources]) -> dict[str, str]:
        """Queue tasks as arrays, one for those that need the same."""
        room = max(0, self.max_jobs - len(running))
        started: dict[str, str] = {}
        for group in grouped(tasks[:room]):
            rest = iter(group)
            while array := list(islice(rest, self.array_size)):
                try:
                    handles = self._submit(array)
                except NnunetError:
                    if started:  # the next call says so
                        return started
                    raise
                started |= dict(zip((task.name for task in array), handles, strict=True))
        return started

    @abstractmethod
    def _submit(self, tasks: Sequence[Task]) -> list[str]:
        """Queue tasks that need the same as one array; return their handles, see `handle_of`.

        Raises:
            SlurmError: Slurm does not take it.
        """

    def look(self, handles: Sequence[str]) -> dict[str, Status]:
        """Ask Slurm; what it said a few seconds ago is not asked again."""
        now = time.monotonic()
        old = [
            handle
            for handle in handles
            if handle not in self._answers or now - self._answers[handle][0] >= self.poll_seconds
        ]
        for handle, status in _statuses(old).items():
            self._answers[handle] = (now, status)
        return {handle: self._answers[handle][1] for handle in handles}

    def stop(self, handles: Sequence[str]) -> None:
        """Cancel what waits; ask what runs to save its work, and cancel what is left."""
        if not handles:
            return
        self._cancel(handles, ["--state=PENDING"])
        self._cancel(handles, self._stop_signal())
        end = time.monotonic() + self.grace_seconds
        while (states := _statuses(handles)) and time.monotonic() < end:
            if all(status.state == "ended" for status in states.values()):
                break
            time.sleep(min(1.0, self.poll_seconds))
        self._cancel([h for h in handles if states[h].state != "ended"], [])
        self._answers.clear()

    @abstractmethod
    def _stop_signal(self) -> list[str]:
        """Return the options of scancel that ask a running job to stop and not to come back."""

    def _cancel(self, handles: Sequence[str], options: Sequence[str]) -> None:
        for some in _pieces([_number(handle) for handle in handles]):
            # those that ended are refused, which is no problem
            _call(["scancel", "--quiet", *options, *some])

    def flags(self, resources: Resources) -> list[str]:
        """Return the long options of sbatch for what a job needs, without dashes."""
        found = {
            "job-name": "nnunet",
            "time": str(self.minutes(resources)),
            "cpus-per-task": str(resources.cpus),
            "mem": f"{math.ceil(resources.memory / 2**20)}M",
        }
        if resources.gpus:
            found["gres"] = f"{self.gres}:{resources.gpus}"
        if self.partition is not None:
            found["partition"] = self.partition
        if self.account is not None:
            found["account"] = self.account
        found |= self.options
        return [f"{name}={value}" if value else name for name, value in found.items()]

    def minutes(self, resources: Resources) -> int:
        """Return the time limit of a job for Slurm, which counts minutes."""
        return max(1, math.ceil(resources.seconds / 60))


def _reach() -> None:
    """Raise UsageError where Slurm's controller does not answer."""
    try:
        ask(["sinfo", "--noheader"])
    except SlurmError as error:
        raise UsageError(
            f"Slurm's controller cannot be reached: {error} Try again when 'sinfo' answers here, "
            "or ask who runs the cluster."
        ) from error


def folder_of(tasks: Sequence[Task]) -> Path:
    """Return a folder for what Slurm itself prints about these tasks."""
    together = os.path.commonpath([task.folder.absolute() for task in tasks])
    return Path(together) / ".slurm"


def ask(words: Sequence[str], script: str | None = None) -> str:
    """Run a command of Slurm; return what it prints.

    Raises:
        UsageError: It is not installed here.
        SlurmError: It failed; the message holds what it said.
    """
    done = _call(words, script)
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise SlurmError(f"{words[0]} says: {said}")
    return done.stdout


def is_running(job: str) -> bool:
    """Return whether Slurm regards a job as running, neither cancelled nor about to end."""
    answer = _call(["squeue", "--noheader", "--format=%T", f"--jobs={job}"])
    return answer.stdout.strip() == "RUNNING"


def _call(words: Sequence[str], script: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            list(words),
            input=script,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no {words[0]} here. Start the benchmark on a machine from which jobs are "
            "submitted (a login node), or use the executor 'local'."
        ) from error
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", f"no answer in {_ANSWER_SECONDS} s")


@contextlib.contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Hide what Slurm has set for a job that this process is part of, while the block runs."""
    before = dict(os.environ)
    for name in before.keys() - _environment().keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _environment() -> dict[str, str]:
    # a driver inside of a job would hand down what Slurm has set for itself, and its cards
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not (name.startswith("SLURM_") or name == "CUDA_VISIBLE_DEVICES")
    }


def _statuses(handles: Sequence[str]) -> dict[str, Status]:
    """Return what Slurm knows of jobs; while it does not answer, they run."""
    found: dict[str, Status] = {}
    for some in _pieces([_number(handle) for handle in handles]):
        found |= _asked(some)
    return {handle: _explained(handle, found[_number(handle)]) for handle in handles}


def _asked(jobs: Sequence[str]) -> dict[str, Status]:
    numbers = ",".join(sorted({each.split("_")[0] for each in jobs}))
    words = ["squeue", "--noheader", "--array", "--all", "--states=all", f"--jobs={numbers}"]
    answer = _call([*words, "--format=%i|%T|%r|%N"])
    if answer.returncode != 0 and "Invalid job id" not in answer.stderr:
        reason = f"Slurm does not answer: {' '.join(answer.stderr.split())}"
        return dict.fromkeys(jobs, Status("running", reason))
    rows = [line.split("|") for line in answer.stdout.splitlines()]
    found = {row[0]: _status(*row) for row in rows if row[0] in jobs}
    return found | _remembered([job for job in jobs if job not in found])


def _explained(handle: str, status: Status) -> Status:
    """Add to the reason what Slurm has printed about a job that ended."""
    said = Path(handle.partition("@")[2])
    if status.state != "ended" or not status.reason or not said.is_file():
        return status
    lines = said.read_text(errors="replace").splitlines()
    # lines with stars only say that it was cancelled
    errors = [line for line in lines if _FROM_SLURM.match(line) and "***" not in line]
    told = "; ".join(dict.fromkeys(errors[-_SHOWN:]))
    return replace(status, reason=f"{status.reason}: {told}") if errors else status


def handle_of(job: str, said: Path) -> str:
    """Return a handle.

    Args:
        job: Its id, as squeue prints it.
        said: The file of what Slurm itself prints about it.
    """
    return f"{job}@{said}"


def _number(handle: str) -> str:
    return handle.partition("@")[0]


def _remembered(handles: Sequence[str]) -> dict[str, Status]:
    """Return what Slurm's accounting knows of jobs that its controller has forgotten."""
    if not handles:
        return {}
    found = dict.fromkeys(handles, Status("ended", "Slurm has forgotten it"))
    words = ["sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={','.join(handles)}"]
    answer = _call([*words, "--format=JobID,State,Reason,NodeList"])
    for line in answer.stdout.splitlines() if answer.returncode == 0 else ():
        row = line.split("|")
        if row[0] in found:
            found[row[0]] = _status(*row)
    return found


def _status(job: str, state: str, reason: str, node: str) -> Status:
    state = state.split(maxsplit=1)[0]  # "CANCELLED by 1000"
    if state in _RUNNING:
        return Status("running", f"job {job} on {node}")
    if state in _ENDED | _LOST:
        told = "" if state == "COMPLETED" else f"{state}, job {job} on {node or 'no node'}"
        return Status("ended", told, is_lost=state in _LOST)
    return Status("waiting", f"job {job}: {reason}")


def _pieces(handles: Sequence[str]) -> list[Sequence[str]]:
    return [handles[i : i + _ASKED_AT_ONCE] for i in range(0, len(handles), _ASKED_AT_ONCE)]
