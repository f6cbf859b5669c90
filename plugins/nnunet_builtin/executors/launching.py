"""A task on a worker: what it sees of where it was started from, and how it is stopped."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_core.contracts.executor import Task

_OURS = ("NNUNET_", "nnUNet_")
_PARENT_DIES = 1  # PR_SET_PDEATHSIG of Linux
#: Signals of batch systems to what starts a task; the task itself is told by SIGTERM.
_FOR_THE_STARTER = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


@dataclass(frozen=True)
class Delivery:
    """A task as it is sent to a worker.

    Attributes:
        command: Words.
        environment: Variables beside those of the worker.
        log: File that everything that it prints is appended to.
        has_gpus: Whether it sees the cards that the worker was given.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    has_gpus: bool

    def start(self, cards: str | None = None) -> subprocess.Popen[bytes]:
        """Start it. It is told to stop when this process dies.

        Args:
            cards: For `CUDA_VISIBLE_DEVICES`; None leaves what the batch system has set.
        """
        environment = {**os.environ, **self.environment}
        if not self.has_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        elif cards is not None:
            environment["CUDA_VISIBLE_DEVICES"] = cards
        with self.log.open("ab") as log:
            return subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=_prepare,  # noqa: PLW1509 - only system calls
            )


def delivery(task: Task) -> Delivery:
    """Return what a worker needs of a task."""
    return Delivery(
        task.command,
        variables(task),
        task.folder.absolute() / task.log.name,
        task.resources.gpus > 0,
    )


def variables(task: Task) -> dict[str, str]:
    """Return the variables of a task, those of this process that configure nnU-Net included."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    return {**ours, **task.environment}


def grouped(tasks: Sequence[Task]) -> list[list[Task]]:
    """Return the tasks in groups that need the same."""
    groups: dict[object, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.resources, []).append(task)
    return list(groups.values())


def _prepare() -> None:
    for number in _FOR_THE_STARTER:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGTERM)
