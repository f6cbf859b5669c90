"""`nnunet report`: a run, a model or a dataset as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_builtin.reports.making import Making
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import UsageError

_ENDING = ".html"


def report(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL|DATASET",
            help="Results of a variant, DATASET/VARIANT or their folder; a model, DATASET/VARIANT/"
            "CONFIGURATION, its folder or its archive; an inference.json; or a dataset.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write. Default: report.html beside what it is of; of a dataset, in "
            "the workspace; of an archive, NAME_report.html here.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="Worst validation cases of each configuration that are drawn."
        ),
    ] = 3,
    workspace: o.WorkspaceOption = None,
    processes: o.ProcessesOption = None,
    memory_gb: o.MemoryOption = None,
) -> None:
    """Write a run, a model or a dataset as one page that opens without network: plans with their
    reasons, curves, scores, worst cases, cost, provenance.

    The page names cases and shows pictures of them.
    """
    if output is not None and (output.suffix.lower() != _ENDING or output.is_dir()):
        raise UsageError(f"--output {output} is not the name of a page; it ends with {_ENDING}.")
    reporter = make_reporter()
    with o.workers_of(processes, memory_gb, reporter) as workers:
        making = Making(
            registry=o.registry_of(context),
            workspace=o.workspace_of(workspace),
            workers=workers,
            report=reporter,
            pictures=pictures,
        )
        out().print(str(making.make(what, output)), soft_wrap=True)
