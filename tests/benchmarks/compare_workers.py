"""Measures what a second place for jobs wins: single-threaded jobs on one core and on two.

python tests/benchmarks/compare_workers.py [--executor local|ray] [--jobs 8] [--size 30]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "builtin" / "executors"))
from driving import drive, script

from nnunet_builtin.executors.local import LocalExecutor
from nnunet_builtin.executors.ray import RayExecutor

_REPEATS = 3


def seconds(executor: Any, jobs: int, size: int) -> float:
    """Return how long the jobs take: a sum of `size` million numbers each."""
    code = f"print(sum(i * i for i in range({size} * 1000000)))"
    with tempfile.TemporaryDirectory() as folder:
        tasks = [script(Path(folder), f"job_{i}", code) for i in range(jobs)]
        start = time.perf_counter()
        drive(executor, tasks, seconds=3600)
        return time.perf_counter() - start


def executors(name: str) -> tuple[Any, Any]:
    """Return executors that run one and two jobs at once."""
    if name == "local":
        return LocalExecutor(cpus=1), LocalExecutor(cpus=2)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    return RayExecutor(cluster.address, max_jobs=1), RayExecutor(cluster.address)


def main() -> None:
    """Measure in turns, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--size", type=int, default=30, help="of each job, millions of numbers")
    chosen = parser.parse_args()
    one, two = executors(chosen.executor)
    rounds = [
        [seconds(each, chosen.jobs, chosen.size) for each in (one, two)] for _ in range(_REPEATS)
    ]
    alone, together = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratios = sorted(round(b / a, 2) for a, b in rounds)
    print(f"{chosen.executor}: one {alone:.1f} s, two {together:.1f} s, ratios {ratios}")


if __name__ == "__main__":
    main()
