"""What an executor starts, on whatever machine: it does the job of a folder, once.

python -m nnunet_builtin.benchmark.work FOLDER
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import platform
import resource
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from nnunet_builtin.benchmark.leases import LeasedError, leased
from nnunet_builtin.benchmark.records import (
    BEGAN,
    ENDED,
    JOB,
    LOG,
    STOPPED,
    Began,
    Ended,
    JobFile,
    read,
)
from nnunet_builtin.benchmark.records import ended as ended_before

_PARENT_DIES = 1  # PR_SET_PDEATHSIG of Linux


def command(folder: Path) -> tuple[str, ...]:
    """Return the command that does the job of a folder."""
    return (sys.executable, "-m", "nnunet_builtin.benchmark.work", str(folder))


def work(folder: Path) -> int:
    """Do the job of a folder, unless it is done or somebody does it; return an exit code."""
    job = JobFile.read(folder / JOB)
    try:
        with leased(folder) as lease:
            before = ended_before(folder, job.identity)
            if before is not None and before.is_done and before.inputs == job.inputs:
                return 0
            began = _begin(folder, job)
            nothing = Ended(identity=job.identity, code=0, attempts=0)
            result = _run(folder, job, began, before or nothing, lease)
            result.write(folder / ENDED)
            return result.code
    except LeasedError:
        print(f"{job.name} is delivered twice: somebody does it already")  # noqa: T201 - its log
        return 0


def _begin(folder: Path, job: JobFile) -> Began:
    """Write down that a job begins, after what another job of its name made is set aside."""
    before = read(Began, folder / BEGAN)
    tries = 1
    if before is not None and before.identity == job.identity:
        tries = before.tries + 1
    elif before is not None and job.makes is not None and Path(job.makes).exists():
        # the command alone would not see that only code has changed
        made = Path(job.makes)
        made.rename(made.with_name(f"{made.name}_stale_{secrets.token_hex(4)}"))
    began = Began(identity=job.identity, tries=tries, parts=job.parts)
    began.write(folder / BEGAN)
    return began


def _run(folder: Path, job: JobFile, began: Began, before: Ended, lease: int) -> Ended:
    words = [sys.executable, "-m", "nnunet_cli", *job.words]
    start, used = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / LOG).open("ab") as log:
        log.write(f"--- try {began.tries} of {job.name}, {platform.node()}\n".encode())
        log.flush()
        code = _done(words, log.fileno(), {**os.environ, **job.environment}, lease)
    seconds, now = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cards = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    peak = now.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cpu_seconds = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    stopped = code in STOPPED
    attempts, stops = before.attempts + (not stopped), before.stops + stopped
    return Ended(
        identity=job.identity,
        inputs=job.inputs,
        run=secrets.token_hex(8),
        code=code,
        attempts=attempts,
        stops=stops,
        seconds=before.seconds + seconds,
        cpu_seconds=before.cpu_seconds + cpu_seconds,
        gpu_seconds=before.gpu_seconds + seconds * len(cards),
        uncounted=max(0, began.tries - attempts - stops),
        peak_memory=max(before.peak_memory, peak),
        host=platform.node(),
        processor=_processor(),
        finished=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _done(words: list[str], log: int, environment: dict[str, str], lease: int) -> int:
    """Run a command that holds the lease, too; return its exit code, 128 + n for the signal n."""
    process = subprocess.Popen(
        words,
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment,
        pass_fds=(lease,),
        # this process has one thread
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )

    def pass_on(number: int, _frame: object) -> None:
        process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _processor(source: Path = Path("/proc/cpuinfo")) -> str:
    """Return the model of the CPU; of a system that does not say it, its architecture."""
    with contextlib.suppress(OSError), source.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine()


def _die_with_parent() -> None:
    """Let the system stop this process when the one that started it is killed."""
    ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))
