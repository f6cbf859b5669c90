"""`nnunet benchmark run`, `status` and `stop`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.table import Table

from nnunet_builtin.benchmark import scheduling
from nnunet_builtin.benchmark.opening import Opened, opened
from nnunet_builtin.judging import tables
from nnunet_builtin.judging.judgement import summary
from nnunet_builtin.judging.rows import write_csv
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import counted
from nnunet_core.runtime import locks

BenchArgument = Annotated[
    Path, typer.Argument(help="bench.toml: datasets, variants, folds, seeds.", show_default=False)
]


def run(
    context: typer.Context,
    bench: BenchArgument,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the jobs and what is done; start nothing.")
    ] = False,
    workspace: o.WorkspaceOption = None,
) -> None:
    """Train and compare variants over datasets, folds and seeds. What is done and still current is
    not done again; a stopped benchmark goes on.
    """
    report = make_reporter()
    found = opened(bench, o.registry_of(context), o.workspace_of(workspace), report)
    found.board.look()
    _print_states(found)
    if dry_run:
        return
    with locks.held(found.root / locks.NAME, "this benchmark", report, wait=False):
        scheduling.run(found.board, report)
    judgement, rows = found.judged()
    write_csv(found.root / "scores.csv", rows)
    tables.write(judgement, found.root)
    for line in summary(judgement):
        out().print(line, soft_wrap=True)
    out().print(f"tables: {found.root / 'comparison.md'}", soft_wrap=True)
    if found.board.failed:
        raise typer.Exit(1)


def status(
    context: typer.Context, bench: BenchArgument, workspace: o.WorkspaceOption = None
) -> None:
    """Show which jobs of a benchmark are done, run, wait or failed."""
    found = opened(bench, o.registry_of(context), o.workspace_of(workspace), make_reporter())
    found.board.look()
    _print_states(found)


def stop(context: typer.Context, bench: BenchArgument, workspace: o.WorkspaceOption = None) -> None:
    """Ask the running jobs of a benchmark to save their work and stop."""
    found = opened(bench, o.registry_of(context), o.workspace_of(workspace), make_reporter())
    board = found.board
    board.look()
    board.executor.stop([handle for handles in board.running.values() for handle in handles])
    out().print(f"stopped {counted(len(board.running), 'job')}")


def _print_states(found: Opened) -> None:
    states = found.board.states()
    stages = dict.fromkeys(job.stage for job in found.graph.jobs.values())
    table = Table(title=f"{found.bench.name}: {counted(len(states), 'job')}", title_justify="left")
    columns = get_args(scheduling.State)
    for column in ("stage", *columns):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages:
        counts = Counter(s for n, s in states.items() if found.graph.jobs[n].stage == stage)
        table.add_row(stage, *(str(counts[column]) for column in columns))
    out().print(table)
