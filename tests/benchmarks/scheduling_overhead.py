"""What a benchmark itself costs: N jobs that do nothing, and a look at M that are finished.

python tests/benchmarks/scheduling_overhead.py --jobs 500 --finished 5000
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from nnunet_builtin.benchmark import records, scheduling
from nnunet_builtin.benchmark.graph import Graph, Job, ordered
from nnunet_builtin.benchmark.matrix import Resources
from nnunet_builtin.benchmark.scheduling import Board
from nnunet_builtin.executors.local import LocalExecutor
from nnunet_core.runtime.reporting import Silence


def main() -> None:
    """Print seconds of the wall clock and of CPUs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--finished", type=int, default=5000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        _run(given.jobs, Path(root))
    with tempfile.TemporaryDirectory() as root:
        _look(given.finished, Path(root))


def _graph(number: int) -> Graph:
    """Return one plan, and jobs that need it and print the version."""
    small = Resources(memory_gb=0.1)
    plan = Job("data/plan", "none", ("--version",), resources=small)
    names = [f"data/none/variant/seed_{n // 5}/fold_{n % 5}" for n in range(number - 1)]
    after = [Job(n, "none", ("--version",), needs=(plan.name,), resources=small) for n in names]
    return ordered([plan, *after])


def _run(number: int, root: Path) -> None:
    executor = LocalExecutor(memory_gb=100)
    board = Board(_graph(number), root, executor, "executors/local", 0)
    start, before = time.perf_counter(), _cpu()
    scheduling.run(board, Silence())
    seconds, cpu = time.perf_counter() - start, [a - b for a, b in zip(_cpu(), before, strict=True)]
    work = sum(ended.cpu_seconds for ended in board.done.values())
    print(f"{number} jobs, {len(board.done)} done: {seconds:.1f} s, {seconds / number:.3f} s a job")
    print(f"  CPU of the driver {cpu[0]:.1f} s, of workers and commands {cpu[1]:.1f} s")
    print(f"  of that the commands alone {work:.1f} s: scheduling costs", end=" ")
    print(f"{(sum(cpu) - work) / number:.3f} CPU seconds a job; load {os.getloadavg()[0]:.1f}")


def _look(number: int, root: Path) -> None:
    graph = _graph(number)
    board = Board(graph, root, LocalExecutor(), "executors/local", 0)
    for job in graph.jobs.values():
        folder = board.folder(job)
        folder.mkdir(parents=True)
        ended = records.Ended(
            identity=job.identity, inputs=board._inputs(job) or "", run="1", code=0
        )
        (folder / records.ENDED).write_text(ended.model_dump_json(indent=1))
        board.done[job.name] = ended
    start, before = time.perf_counter(), sum(_cpu())
    Board(graph, root, LocalExecutor(), "executors/local", 0).look()
    seconds, cpu = time.perf_counter() - start, sum(_cpu()) - before
    print(f"{number} finished jobs looked at: {seconds:.2f} s, CPU {cpu:.2f} s")


def _cpu() -> tuple[float, float]:
    """Return CPU seconds of this process and of its children."""
    found = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return found[0].ru_utime + found[0].ru_stime, found[1].ru_utime + found[1].ru_stime


if __name__ == "__main__":
    main()
