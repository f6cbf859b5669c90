"""What an executor starts, on whatever machine: it does the job of a folder, once.

python -m nnunet_builtin.benchmark.work FOLDER
"""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from nnunet_builtin.benchmark.records import ENDED, JOB, LEASE, LOG, Ended, JobFile, ended
from nnunet_core.errors import StorageError
from nnunet_core.runtime import locks
from nnunet_core.runtime.reporting import Silence

_PARENT_DIES = 1  # PR_SET_PDEATHSIG of Linux
#: To save a training before a batch system kills everything.
_GRACE_SECONDS = 120


def command(folder: Path) -> tuple[str, ...]:
    """Return the command that does the job of a folder."""
    return (sys.executable, "-m", "nnunet_builtin.benchmark.work", str(folder))


def work(folder: Path) -> int:
    """Do the job of a folder, unless it is done or somebody does it; return an exit code."""
    job = JobFile.read(folder / JOB)
    try:
        with locks.held(folder / LEASE, "this job", Silence(), wait=False):
            before = ended(folder, job.identity)
            if before is not None and before.is_done:
                return 0
            result = _run(folder, job, 1 if before is None else before.attempts + 1)
            result.write(folder / ENDED)
            return result.code
    except StorageError as error:
        if locks.holder(folder / LEASE):
            print(f"delivered twice: {error}")  # noqa: T201 - into the log of the executor
            return 0
        raise


def _run(folder: Path, job: JobFile, attempt: int) -> Ended:
    words = [sys.executable, "-m", "nnunet_cli", *job.words]
    start, used = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / LOG).open("ab") as log:
        log.write(f"--- try {attempt} of {job.name}, {platform.node()}\n".encode())
        log.flush()
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **job.environment},
            # this process has one thread
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        code = _ended(process)
    seconds, now = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cards = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    return Ended(
        identity=job.identity,
        code=code if code >= 0 else 128 - code,
        attempts=attempt,
        seconds=seconds,
        cpu_seconds=now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime,
        gpu_seconds=seconds * len(cards),
        peak_memory=now.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        host=platform.node(),
        finished=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command; signals to this process are passed on to it."""

    def pass_on(number: int, _frame: object) -> None:
        process.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with_parent() -> None:
    """Let the system stop this process when the one that started it is killed."""
    ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))
