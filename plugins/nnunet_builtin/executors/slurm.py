"""The executor `slurm`: arrays of Slurm through submitit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from nnunet_builtin.executors import batch
from nnunet_builtin.executors.launching import Delivery, delivery
from nnunet_core.contracts.executor import Resources, Task
from nnunet_core.errors import UsageError

_TERMINATED = 128 + signal.SIGTERM
_SIGNAL_SECONDS = 2


@dataclass(frozen=True)
class SlurmExecutor(batch.SlurmQueue):
    """Hands jobs to Slurm through submitit, which starts them again after their time limit. The
    settings are those of `SlurmQueue`.
    """

    def check(self, needed: Sequence[Resources]) -> None:
        """Raise UsageError where submitit is missing; else see `SlurmQueue.check`."""
        _submitit()
        super().check(needed)

    def _submit(self, tasks: Sequence[Task]) -> list[str]:
        submitit, resources = _submitit(), tasks[0].resources
        folder = batch.folder_of(tasks)
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=self.restarts)
        flags = dict(text.partition("=")[::2] for text in self.flags(resources))
        executor.update_parameters(
            time=self.minutes(resources),
            array_parallelism=self.parallel or len(tasks),
            signal_delay_s=self.grace_seconds,
            setup=["set -e", *self.setup],
            additional_parameters={
                **{name.replace("-", "_"): value or True for name, value in flags.items()},
                "requeue": True,
            },
            # a step does not inherit this from its job
            srun_args=[f"--cpus-per-task={resources.cpus}"],
        )
        try:
            with batch.outside_of_jobs(), executor.batch():
                jobs = [executor.submit(Resumed(delivery(task))) for task in tasks]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as e:
            raise batch.SlurmError(f"sbatch says: {' '.join(str(e).split())}") from e
        return [batch.handle_of(job.job_id, job.paths.stderr) for job in jobs]

    def _stop_signal(self) -> list[str]:
        return ["--signal=INT"]


@dataclass
class Resumed:
    """What submitit runs: a job that saves its work, stops and goes on in another slot.

    Attributes:
        delivery: The job.
    """

    delivery: Delivery
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _is_preempted: bool = field(default=False, init=False)

    def __call__(self) -> None:
        """Run the job.

        Raises:
            CalledProcessError: It failed.
        """
        signal.signal(signal.SIGTERM, self._preempted)
        signal.signal(signal.SIGINT, lambda *_: self._ask())
        self._process = self.delivery.start()
        code = self._process.wait()
        if code in (_TERMINATED, -signal.SIGTERM):  # it heard the signal first
            time.sleep(_SIGNAL_SECONDS)
        if self._is_preempted and batch.is_running(_own_number()):
            batch.ask(["scontrol", "requeue", _own_number()])
        if code != 0:
            raise subprocess.CalledProcessError(code, self.delivery.command)

    def checkpoint(self) -> Any:
        """Stop the job at its time limit; return what is run in the next slot."""
        self._ask()
        if self._process is not None:
            # submitit calls this in a signal's handler, in the midst of the wait above
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self._process.pid).wait()
        return _submitit().helpers.DelayedSubmission(Resumed(self.delivery))

    def _preempted(self, *_: object) -> None:
        self._is_preempted = True
        self._ask()

    def _ask(self) -> None:
        if self._process is not None:
            self._process.terminate()


def _own_number() -> str:
    number, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return os.environ["SLURM_JOB_ID"] if number is None else f"{number}_{index}"


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UsageError(
            "The executor 'slurm' needs submitit. Run: pip install 'nnunet-core[slurm]', or use "
            "the executor 'sbatch', which needs nothing."
        ) from error
    return submitit
