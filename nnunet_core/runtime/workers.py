"""The same work on many items, in this process or in several that are started once and share the
memory.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psutil
from pebble import ProcessExpired, ProcessPool

from nnunet_core.errors import NnunetError
from nnunet_core.runtime.memory import GB, available
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.runtime.signals import leave_interrupts_to_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: Work on less than this many bytes, in all, is done before other processes have started.
SMALL_WORK = 400_000_000
_SHARE_OF_MEMORY = 0.8
_WATCH_SECONDS = 0.1
_SCRIPT_HINT = "In a script of your own, call this under: if __name__ == '__main__':"


@dataclass
class _Job(Generic[_Item]):
    """One item on its way.

    Attributes:
        index, item: Its place, and itself.
        estimate: Returns the bytes that it needs.
        deaths: How the processes that worked on it died.
    """

    index: int
    item: _Item
    estimate: Callable[[_Item], int]
    deaths: list[str] = field(default_factory=list)

    @functools.cached_property
    def cost(self) -> int:
        """Bytes; an estimate may read a file, so that it is made when it is needed."""
        return self.estimate(self.item)


def _is_small(jobs: Iterable[_Job[Any]]) -> bool:
    """Return whether all is done before other processes have started; stops where it is not."""
    return all(total <= SMALL_WORK for total in itertools.accumulate(job.cost for job in jobs))


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(contextlib.AbstractContextManager["Workers"]):
    """Processes that are started at the first work that needs them, and end with the `with` block.

    Args:
        count: Processes; 1 works in this process. Each computes in one thread.
        memory: Bytes that the items in work may need together, by their estimates; None takes 80 %
            of what is free. An item that needs more is worked on alone.
        report: Hears of processes that died.
    """

    def __init__(
        self, count: int = 1, memory: int | None = None, report: Reporter | None = None
    ) -> None:
        self.count = count
        self.memory = memory
        self.report = report or Silence()
        self._pool: ProcessPool | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; unfinished work is dropped."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def each(
        self,
        work: Callable[[_Item], _Result],
        items: Sequence[_Item],
        cost: Callable[[_Item], int] | None = None,
        name: Callable[[_Item], str] = str,
    ) -> Iterator[_Result]:
        """Yield `work(item)` in the order of the items.

        Args:
            work: With several processes it is pickled, as are items and results: a module's
                function, or a partial of one.
            items: What to work on.
            cost: Estimates the memory in bytes that an item needs; without it items only count by
                number.
            name: What an item is called in messages.

        Raises:
            NnunetError: The process of an item died, and died again when the item was tried once
                more, alone. Errors of `work` are raised as they are, when their item's turn comes.
        """
        estimate = cost or (lambda _: 0)
        jobs = [_Job(number, item, estimate) for number, item in enumerate(items)]
        if self.count == 1 or len(jobs) < 2 or (cost is not None and _is_small(jobs)):
            yield from map(work, items)
        else:
            yield from self._in_processes(work, jobs, name)

    def _in_processes(
        self,
        work: Callable[[_Item], _Result],
        jobs: Sequence[_Job[_Item]],
        name: Callable[[_Item], str],
    ) -> Iterator[_Result]:
        limit = self.memory if self.memory is not None else int(_SHARE_OF_MEMORY * available())
        waiting, due = deque(jobs), 0
        peaks: dict[int, int] = {}
        running: dict[Future[_Result], _Job[_Item]] = {}
        finished: dict[int, Future[_Result]] = {}
        try:
            while due < len(jobs):
                self._start(work, waiting, running, limit)
                wait(running, timeout=_WATCH_SECONDS, return_when=FIRST_COMPLETED)
                _look(peaks)
                self._give_up_broken(running)
                for future in [future for future in running if future.done()]:
                    job = running.pop(future)
                    if self._died(future, job, peaks, name):
                        waiting.appendleft(job)
                    else:
                        finished[job.index] = future
                while due in finished:
                    yield finished.pop(due).result()
                    due += 1
        finally:
            for future in running:
                future.cancel()

    def _start(
        self,
        work: Callable[[_Item], _Result],
        waiting: deque[_Job[_Item]],
        running: dict[Future[_Result], _Job[_Item]],
        limit: int,
    ) -> None:
        """Start the next items while there are processes and memory for them; one that failed
        before runs alone.
        """
        while waiting and len(running) < self.count:
            alone = waiting[0].deaths or any(job.deaths for job in running.values())
            needed = waiting[0].cost + sum(job.cost for job in running.values())
            if running and (alone or needed > limit):
                return
            job = waiting.popleft()
            running[self._schedule(work, job.item)] = job

    def _schedule(self, work: Callable[[_Item], _Result], item: _Item) -> Future[_Result]:
        try:
            try:
                return self._processes().schedule(_in_one_thread, args=[work, item])
            except RuntimeError:  # a process was killed before it had its first item
                self.close()
                return self._processes().schedule(_in_one_thread, args=[work, item])
        except (OSError, BrokenProcessPool) as error:
            raise NnunetError(
                f"No further processes can be started: {error.__cause__ or error}. They need "
                "memory, shared memory (/dev/shm), and places below the limit of processes "
                "(ulimit -u). Mend that, or work in this process: --processes 1."
            ) from error

    def _give_up_broken(self, running: Iterable[Future[Any]]) -> None:
        """Cancel what pebble forgets when a process dies before it has its first item."""
        if self._pool is not None and not self._pool.active:
            for future in running:
                future.cancel()  # nothing happens to those that are done
            self.close()

    def _processes(self) -> ProcessPool:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPool(
                max_workers=self.count, context=context, initializer=leave_interrupts_to_parent
            )
        return self._pool

    def _died(
        self,
        future: Future[Any],
        job: _Job[_Item],
        peaks: dict[int, int],
        name: Callable[[_Item], str],
    ) -> bool:
        """Return whether the process of a job died for the first time; raise when it died again."""
        error = BrokenProcessPool() if future.cancelled() else future.exception()
        if isinstance(error, BrokenProcessPool):  # pebble gives all items up, none is to blame
            job.deaths.append("killed as it started")
        elif isinstance(error, ProcessExpired):
            job.deaths.append(
                f"{_cause(error.exitcode)}, peak memory {peaks.get(error.pid, 0) / GB:.2f} GB"
            )
        else:
            return False
        if len(job.deaths) == 1:
            self.report.warning(
                f"the process of {name(job.item)} died ({job.deaths[0]}); that is tried once more, "
                "alone"
            )
            return True
        raise NnunetError(
            f"The process of {name(job.item)} died twice: {'; then alone: '.join(job.deaths)}. "
            "Most often the memory was full or a library crashed on this case. Free memory, or "
            f"leave the case out. {_SCRIPT_HINT}"
        ) from error


def _look(peaks: dict[int, int]) -> None:
    """Note the most memory in bytes that each process which this one started was seen to hold, by
    its id.
    """
    for process in multiprocessing.active_children():
        pid = process.pid or 0
        with contextlib.suppress(psutil.Error):
            peaks[pid] = max(peaks.get(pid, 0), psutil.Process(pid).memory_info().rss)


def _cause(exit_code: int) -> str:
    if exit_code < 0:
        return f"signal {-exit_code}, {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _in_one_thread(work: Callable[[_Item], _Result], item: _Item) -> _Result:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return work(item)
