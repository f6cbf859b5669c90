"""The plugin `benchmark`: the commands that run and judge many variants on many datasets."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_HERE = "nnunet_builtin.benchmark.commands"


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(
            "benchmark run",
            f"{_HERE}:run",
            "Train and compare variants over datasets, folds and seeds.",
        ),
        Component(
            "benchmark status",
            f"{_HERE}:status",
            "Show which jobs of a benchmark are done, run, wait or failed.",
        ),
        Component(
            "benchmark stop", f"{_HERE}:stop", "Ask running jobs to save their work and stop."
        ),
        Component(
            "benchmark report",
            "nnunet_builtin.benchmark.report.commands:report",
            "Write one HTML file that says what the scores of a benchmark show.",
        ),
    ]
