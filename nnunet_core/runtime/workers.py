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
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psutil
from pebble import ProcessExpired, ProcessPool

from nnunet_core.errors import NnunetError
from nnunet_core.runtime import groups
from nnunet_core.runtime.collecting import collector_works
from nnunet_core.runtime.memory import GB, available
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.runtime.signals import leave_interrupts_to_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
#: What becomes of a job: the results of its items, and the seconds that they took.
_Future = Future[tuple[list[_Result], float]]

#: Work on less than this many bytes, in all, is done before other processes have started.
SMALL_WORK = 400_000_000
#: To estimate the bytes of more items takes as long as to start the processes.
FEW_ITEMS = 4_000
_SHARE_OF_MEMORY = 0.8
_WATCH_SECONDS = 0.1
#: A process is given as many items at once as take this long, at most this many: to send one costs
#: about 2 ms, as much as the work on a small picture.
_BATCH_SECONDS, _BATCH_ITEMS = 0.1, 64
_SCRIPT_HINT = "In a script of your own, call this under: if __name__ == '__main__':"


@dataclass
class _Job(Generic[_Item]):
    """An item on its way, or several that follow each other.

    Attributes:
        start: The place of the first one.
        items: What a process works on, one by one.
        cost: Bytes that the largest of them needs.
        deaths: How the processes that worked on it died, where it is one item.
    """

    start: int
    items: Sequence[_Item]
    cost: int
    deaths: list[str] = field(default_factory=list)


@dataclass
class _Queue(Generic[_Item]):
    """The items that wait for a process, in their order.

    Attributes:
        items: All items.
        cost: Returns the bytes that the item at a place needs.
        size: How many a process is given at once.
        taken: How many were made jobs.
        jobs: Those of these that wait.
    """

    items: Sequence[_Item]
    cost: Callable[[int], int]
    size: int = 1
    taken: int = 0
    jobs: deque[_Job[_Item]] = field(default_factory=deque)

    def first(self) -> _Job[_Item] | None:
        """Return the next job, which stays; None after the last one."""
        if not self.jobs and self.taken < len(self.items):
            stop = min(self.taken + self.size, len(self.items))
            cost = max(map(self.cost, range(self.taken, stop)))
            self.jobs.append(_Job(self.taken, self.items[self.taken : stop], cost))
            self.taken = stop
        return self.jobs[0] if self.jobs else None

    def again(self, job: _Job[_Item], done: int = 0) -> None:
        """Let a job wait again; several items one by one, without the first `done`."""
        if len(job.items) == 1:
            self.jobs.appendleft(job)
            return
        for number in reversed(range(done, len(job.items))):
            place = job.start + number
            self.jobs.appendleft(_Job(place, [job.items[number]], self.cost(place)))

    def finished(
        self, job: _Job[_Item], future: _Future[_Result]
    ) -> dict[int, tuple[_Future[_Result], int]]:
        """Return {place: (future, number in its results)} of the items that need no further work;
        those after one that failed wait again.
        """
        failed = future.exception() is not None
        results, seconds = ([], 0.0) if failed else future.result()
        done = len(results)
        if results:
            size = int(_BATCH_SECONDS * done / max(seconds, _BATCH_SECONDS / _BATCH_ITEMS))
            self.size = min(max(size, 1), _BATCH_ITEMS)
        if failed and len(job.items) == 1:
            done = 1  # its error is what comes of it
        elif done < len(job.items):
            self.again(job, done)
        return {job.start + number: (future, number) for number in range(done)}


def _is_small(count: int, cost: Callable[[int], int]) -> bool:
    """Return whether so many items are done before other processes have started."""
    if count > FEW_ITEMS:
        return False
    return all(total <= SMALL_WORK for total in itertools.accumulate(map(cost, range(count))))


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use: of the machine, or of the container
    or the job if that is less.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    own = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(own, groups.cores() or own)


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
                function, or a partial of one. An item that fails may be worked on twice.
            items: What to work on.
            cost: Estimates the memory in bytes that an item needs; without it items only count by
                number.
            name: What an item is called in messages.

        Raises:
            NnunetError: The process of an item died, and died again when the item was tried once
                more, alone. Errors of `work` are raised as they are, when their item's turn comes.
        """

        @functools.cache  # an estimate may read a file, so that it is made once, when it is needed
        def measured(place: int) -> int:
            return cost(items[place]) if cost is not None else 0

        is_alone = self.count == 1 or len(items) < 2
        if is_alone or (cost is not None and _is_small(len(items), measured)):
            for item in items:
                with collector_works():
                    result = work(item)
                yield result
        else:
            yield from self._in_processes(work, _Queue(items, measured), name)

    def _in_processes(
        self,
        work: Callable[[_Item], _Result],
        queue: _Queue[_Item],
        name: Callable[[_Item], str],
    ) -> Iterator[_Result]:
        limit = self.memory if self.memory is not None else int(_SHARE_OF_MEMORY * available())
        due = 0
        peaks: dict[int, int] = {}
        running: dict[_Future[_Result], _Job[_Item]] = {}
        finished: dict[int, tuple[_Future[_Result], int]] = {}
        try:
            while due < len(queue.items):
                self._start(work, queue, running, limit)
                wait(running, timeout=_WATCH_SECONDS, return_when=FIRST_COMPLETED)
                _look(peaks)
                self._give_up_broken(running)
                for future in [future for future in running if future.done()]:
                    job = running.pop(future)
                    if self._died(future, job, peaks, name):
                        queue.again(job)
                    else:
                        finished.update(queue.finished(job, future))
                while due in finished:
                    future, number = finished.pop(due)
                    yield future.result()[0][number]
                    due += 1
        finally:
            for future in running:
                future.cancel()

    def _start(
        self,
        work: Callable[[_Item], _Result],
        queue: _Queue[_Item],
        running: dict[_Future[_Result], _Job[_Item]],
        limit: int,
    ) -> None:
        """Start the next items while there are processes and memory for them; one that failed
        before runs alone.
        """
        while len(running) < self.count and (job := queue.first()) is not None:
            alone = job.deaths or any(other.deaths for other in running.values())
            needed = job.cost + sum(other.cost for other in running.values())
            if running and (alone or needed > limit):
                return
            queue.jobs.popleft()
            running[self._schedule(work, job.items)] = job

    def _schedule(
        self, work: Callable[[_Item], _Result], items: Sequence[_Item]
    ) -> _Future[_Result]:
        try:
            try:
                return self._processes().schedule(_in_one_thread, args=[work, items])
            except RuntimeError:  # a process was killed before it had its first item
                self.close()
                return self._processes().schedule(_in_one_thread, args=[work, items])
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
        """Return whether the process of a job died and it is to be tried again; raise when that of
        one item died for the second time.
        """
        error = BrokenProcessPool() if future.cancelled() else future.exception()
        if isinstance(error, BrokenProcessPool):  # pebble gives all items up, none is to blame
            job.deaths.append("killed as it started")
        elif isinstance(error, ProcessExpired):
            job.deaths.append(
                f"{_cause(error.exitcode)}, peak memory {peaks.get(error.pid, 0) / GB:.2f} GB"
            )
        else:
            return False
        first = name(job.items[0])
        if len(job.items) > 1:
            self.report.warning(
                f"the process of {first} and of {len(job.items) - 1} more died ({job.deaths[0]}); "
                "they are tried once more, one by one"
            )
            return True
        if len(job.deaths) == 1:
            self.report.warning(
                f"the process of {first} died ({job.deaths[0]}); that is tried once more, alone"
            )
            return True
        raise NnunetError(
            f"The process of {first} died twice: {'; then alone: '.join(job.deaths)}. "
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


def _in_one_thread(
    work: Callable[[_Item], _Result], items: Sequence[_Item]
) -> tuple[list[_Result], float]:
    """Return the results of items, up to the first error, and the seconds that they took.

    Raises:
        Exception: That of the first item.
    """
    from threadpoolctl import threadpool_limits

    results: list[_Result] = []
    started = time.perf_counter()
    with threadpool_limits(1):
        for item in items:
            try:
                results.append(work(item))
            except Exception:
                if not results:
                    raise
                break  # it is raised when the item is worked on again, as the first one
    return results, time.perf_counter() - started
