"""The plugin `reports`: a run, a model or a dataset as one page; `nnunet run` writes that of its
results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunet_core import Component, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.data.dataset import Dataset
    from nnunet_core.runtime.reporting import Reporter
    from nnunet_core.store.workspace import Workspace


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the command."""
    return [
        Component(
            "report",
            "nnunet_builtin.reports.commands:report",
            "Write a run, a model or a dataset as one page.",
        )
    ]


@hookimpl
def nnunet_results_ready(
    folder: Path, dataset: Dataset, workspace: Workspace, report: Reporter
) -> None:
    """Write the page of a run that has ended."""
    from nnunet_builtin.reports.making import report_run

    report.message(f"report: {report_run(folder, dataset, workspace, report)}")
