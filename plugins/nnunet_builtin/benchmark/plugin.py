"""The plugin `benchmark`: the commands that run and judge many variants on many datasets."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_HERE = "nnunet_builtin.benchmark.commands"
#: The extra `benchmark` of the package; asked for before any job starts.
_STATISTICS = ("baycomp>=1.0.3", "statsmodels>=0.14")


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(
            "benchmark run",
            f"{_HERE}:run",
            "Train and compare variants over datasets, folds and seeds.",
            requires=_STATISTICS,
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
            "benchmark add",
            f"{_HERE}:add",
            "Add results of nnU-Net v1 and v2, or of a table, to a benchmark.",
        ),
        Component(
            "benchmark report",
            "nnunet_builtin.benchmark.report.commands:report",
            "Write one HTML file that says what the scores of a benchmark show.",
            requires=_STATISTICS,
        ),
    ]
