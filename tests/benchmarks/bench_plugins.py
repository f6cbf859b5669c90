"""Time of `nnunet plugins list` beside many installed plugins, and of `nnunet --help`.

Usage: python tests/benchmarks/bench_plugins.py [--plugins 200] [--components 5] [--runs 5]

Each figure is the median (and the range) of new processes, in turns: with nothing but our own
plugins, with healthy ones, and with those of every kind of trouble among them, one of which sleeps
2 s; then the median of their CPU time, which other work on the machine does not add to.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "builders"))
import fake_plugins

SLEEP = 2.0


def seconds(site: Path | None, *arguments: str) -> tuple[float, float]:
    """Run a command beside the plugins in a folder; return the time that passed, and that of CPUs,
    which it took.
    """
    environment = {**os.environ, "PYTHONPATH": str(site or "")}
    command = [sys.executable, "-m", "nnunet_cli", *arguments]
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    passed, after = time.perf_counter() - started, os.times()
    user, system = after.children_user - before.children_user, after.children_system
    return passed, user + system - before.children_system


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugins", type=int, default=200)
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        healthy, troubled = Path(folder, "healthy"), Path(folder, "troubled")
        fake_plugins.put_troubled(troubled, SLEEP, given.components)
        others = given.plugins - len(list(troubled.glob("*.dist-info")))
        fake_plugins.put_healthy(troubled, others, given.components)
        fake_plugins.put_healthy(healthy, given.plugins, given.components)
        awake = ("--no-plugin", "sleepy")
        rows: dict[str, tuple[Path | None, tuple[str, ...]]] = {
            "nnunet --help, our own plugins": (None, ("--help",)),
            "plugins list, our own plugins": (None, ("plugins", "list")),
            f"plugins list, {given.plugins} more": (healthy, ("plugins", "list")),
            "the same with troubled ones": (troubled, ("plugins", "list", *awake)),
            f"and one that sleeps {SLEEP:g} s": (troubled, ("plugins", "list")),
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
        for number in range(given.runs + 1):
            for name, (site, words) in rows.items():
                spent = seconds(site, *words)
                if number:  # the first one compiles
                    taken[name].append(spent)
    for name, each in taken.items():
        passed, computed = zip(*each, strict=True)
        spread = f"{statistics.median(passed):.2f} s ({min(passed):.2f} to {max(passed):.2f})"
        print(f"{name:35} {spread}, CPU {statistics.median(computed):.2f} s")


if __name__ == "__main__":
    main()
