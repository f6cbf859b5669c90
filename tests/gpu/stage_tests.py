"""Stage a: the tests that need a card."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from common import HERE, REPOSITORY, Results, Table, asked

#: Environment variable that lets a CPU take the place of the card.
PLACE = "NNUNET_GPU_TESTS"
#: Files that show, with --tiny, that the stage works; `make test` runs all of them.
TINY = ("test_gpu_devices.py", "test_gpu_losses.py")


class Recorder:
    """Hears of every test from pytest, and writes what it hears.

    Args:
        results: Of the stage.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.seconds = 0.0
        self.table = results.table("Tests", *self.counts, "seconds")
        self.failures: Table | None = None
        results.row(self.table, *self.counts.values(), 0.0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test by its call, or by a preparation or an end that went wrong."""
        self.seconds += report.duration
        if report.failed:
            self._failure(report.nodeid, report.longrepr)
        counts = report.when == "call" or report.outcome != "passed"
        if counts:
            self.counts[report.outcome] += 1
        for name, value in (*self.counts.items(), ("seconds", self.seconds)):
            self.results.fill(self.table, 0, name, value)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a file that cannot be read."""
        if report.failed:
            self._failure(report.nodeid, report.longrepr)
            self.counts["failed"] += 1
            self.results.fill(self.table, 0, "failed", self.counts["failed"])

    def _failure(self, name: str, text: object) -> None:
        if self.failures is None:
            self.failures = self.results.table("Failures", "test", "last line")
        self.results.row(self.failures, name, last_line(text))


def last_line(text: Any) -> str:
    """Return what a failure says last: the error itself, or the last line that is not empty."""
    crash = getattr(text, "reprcrash", None)
    message = str(crash.message if crash else text).strip()
    lines = message.splitlines() or ["no message"]
    return lines[0 if crash else -1][:300]


def main() -> int:
    given = asked(__doc__)
    if given.device == "cpu":
        os.environ[PLACE] = "cpu"
    results = Results("Tests on the card", given)
    recorder = Recorder(results)
    settings = [f"--rootdir={REPOSITORY}", "-o", "addopts=", "-p", "no:cacheprovider"]
    shown = ["-q", "--tb=short", "--show-capture=no"]
    files = [str(HERE / name) for name in TINY] if given.tiny else [str(HERE)]
    code = pytest.main([*files, "-m", "gpu", *settings, *shown], plugins=[recorder])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        results.note("There are no tests here.")
    results.finish()
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
