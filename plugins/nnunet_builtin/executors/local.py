"""The executor `local`: processes of this machine, with places for cards, cores and memory."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from nnunet_core.contracts.executor import Resources, Status, Task
from nnunet_core.errors import StorageError, UsageError, counted
from nnunet_core.runtime.memory import available
from nnunet_core.runtime.workers import usable_cores

_STOP_SECONDS = 300
_CARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9/-]*")


@dataclass(frozen=True)
class LocalExecutor:
    """Runs jobs as processes of this machine, as many at once as it has room for.

    Args:
        gpus: Cards that jobs may use, as CUDA numbers them ("0", "GPU-..."); None means all that
            this process sees.
        cpus: Cores that jobs may use together; None means all that this process may use.
        memory_gb: Main memory that jobs may need together; None means what is free at the start
            of each, less what those that run may still take.
    """

    gpus: tuple[str, ...] | None = None
    cpus: int | None = None
    memory_gb: float | None = None

    def check(self, needed: Sequence[Resources]) -> None:
        """Raise UsageError where a job needs more than this machine has."""
        if any(each.gpus for each in needed):
            _check_cards(self.cards())
        cards, cores = len(self.cards()), self._cores()
        for each in needed:
            if each.gpus > cards:
                raise UsageError(
                    f"A job needs {counted(each.gpus, 'GPU')}; this machine has {cards} for jobs. "
                    "Lower 'gpus' in the resources of the benchmark, or use another executor."
                )
            if each.cpus > cores:
                raise UsageError(
                    f"A job needs {counted(each.cpus, 'core')}; this machine has {cores} for jobs. "
                    "Lower 'cpus' in the resources of the benchmark, or use another executor."
                )

    def start(self, tasks: Sequence[Task], running: Mapping[str, Resources]) -> dict[str, str]:
        """Start processes that outlive this one, where cards, cores and memory are left."""
        busy = dict(running)
        started: dict[str, str] = {}
        refused: set[Resources] = set()
        for task in tasks:
            if task.resources in refused or not self._has_room(task.resources, busy):
                refused.add(task.resources)
                continue  # a smaller one may still fit
            try:
                handle = self._start(task, self._free_cards(busy)[: task.resources.gpus])
            except OSError as error:
                if started:  # the next call says so
                    return started
                raise StorageError(f"{task.name} could not be started: {error}") from error
            started[task.name], busy[handle] = handle, task.resources
        return started

    def _has_room(self, resources: Resources, running: Mapping[str, Resources]) -> bool:
        """Return whether cards, cores and memory are left; alone, a job always has memory."""
        if sum(each.cpus for each in running.values()) + resources.cpus > self._cores():
            return False
        if resources.gpus > len(self._free_cards(running)):
            return False
        return not running or self._memory_left(running) >= resources.memory

    def _start(self, task: Task, cards: Sequence[str]) -> str:
        environment = {**os.environ, **task.environment, "CUDA_VISIBLE_DEVICES": ",".join(cards)}
        with task.log.open("ab") as log:
            process = psutil.Popen(
                list(task.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return json.dumps([process.pid, process.create_time(), cards])

    def look(self, handles: Sequence[str]) -> dict[str, Status]:
        """Return whether their process is there, and the same."""
        return {
            handle: Status("ended" if _process(handle) is None else "running") for handle in handles
        }

    def stop(self, handles: Sequence[str]) -> None:
        """Send SIGTERM, and wait until the jobs have saved their work."""
        processes = [process for handle in handles if (process := _process(handle)) is not None]
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
        psutil.wait_procs(processes, timeout=_STOP_SECONDS)

    def _cores(self) -> int:
        return usable_cores() if self.cpus is None else self.cpus

    def cards(self) -> tuple[str, ...]:
        """Return the cards that jobs may use."""
        return _visible_cards() if self.gpus is None else tuple(self.gpus)

    def _free_cards(self, running: Iterable[str]) -> list[str]:
        taken = {card for handle in running for card in _parts(handle)[2]}
        return [card for card in self.cards() if card not in taken]

    def _memory_left(self, running: Mapping[str, Resources]) -> float:
        if self.memory_gb is not None:
            return self.memory_gb * 1e9 - sum(each.memory for each in running.values())
        missing = [max(0, each.memory - _resident(h)) for h, each in running.items()]
        return available() - sum(missing)


def _check_cards(cards: Sequence[str]) -> None:
    if len(set(cards)) < len(cards) or not all(map(_CARD.fullmatch, cards)):
        raise UsageError(
            f"The cards for jobs are {', '.join(map(repr, cards))}: each is one number or name, "
            "such as '0' or 'GPU-8f1c...', and stands there once. They are the setting 'gpus' of "
            "the executor, else CUDA_VISIBLE_DEVICES."
        )


def _resident(handle: str) -> int:
    """Return the bytes that a task's processes hold."""
    process = _process(handle)
    if process is None:
        return 0
    total = 0
    with contextlib.suppress(psutil.Error):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
    return total


def _parts(handle: str) -> tuple[int, float, list[str]]:
    """Return process, time of its creation and cards; process 0 of a handle that says nothing."""
    try:
        match json.loads(handle):
            case [int(number), float(created), [*cards]] if 0 < number < 2**31:
                return number, created, [str(card) for card in cards]
    except (ValueError, RecursionError):
        pass
    return 0, 0.0, []


def _process(handle: str) -> psutil.Process | None:
    """Return the process of a handle; None where it ended, and the number may be another's."""
    number, created, _ = _parts(handle)
    try:
        process = psutil.Process(number)
        if process.create_time() != created:
            return None
        if process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.Error:
        return None
    with contextlib.suppress(ChildProcessError):  # of another driver
        os.waitpid(number, os.WNOHANG)
    return None


@functools.cache
def _visible_cards() -> tuple[str, ...]:
    """Return the cards that this process sees, without loading torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        cards = [card.strip() for card in chosen.split(",")]
        # as CUDA reads it: what follows an invalid one, such as -1, is hidden
        hidden = [not card or card.startswith("-") or card == "NoDevFiles" for card in cards]
        return tuple(cards[: (*hidden, True).index(True)])
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no card, or no driver
        return ()
    return tuple(found.stdout.split())  # numbers of CUDA and of the driver may differ
