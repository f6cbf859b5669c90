"""`nnunet benchmark run`, `status` and `stop`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from nnunet_builtin.benchmark import judging, matrix, results, scheduling
from nnunet_builtin.benchmark.jobs import Graph, Job, Member, build, members
from nnunet_builtin.benchmark.matrix import Bench
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.contracts.abilities import built
from nnunet_core.errors import UsageError, counted
from nnunet_core.runtime import files, locks
from nnunet_core.stages.dataset import open_dataset

BenchArgument = Annotated[
    Path, typer.Argument(help="bench.toml: datasets, variants, folds, seeds.", show_default=False)
]
_FOLDER = "benchmarks"


@dataclass(frozen=True)
class _Opened:
    """A benchmark whose names are all resolved."""

    bench: Bench
    members: dict[str, Member]
    datasets: dict[str, Any]
    graph: Graph
    board: scheduling.Board
    root: Path

    def rows(self) -> list[results.Row]:
        """Read the scores that are there, and those that crashed trainings lack."""
        described = {
            key: (each.name, each.labels, each.label_ending) for key, each in self.datasets.items()
        }
        failed = [self._place(self.graph.jobs[name]) for name in sorted(self.board.failed)]
        crashed = [place for place in failed if place is not None]
        return results.collect(self.bench, self.members, described, self.root, crashed)

    def _place(self, job: Job) -> tuple[str, str, str, int, str] | None:
        if job.stage != "train":
            return None
        dataset, _, variant, *configuration, seed, fold = job.name.split("/")
        seed, fold = seed.removeprefix("seed_"), fold.removeprefix("fold_")
        return (dataset, "".join(configuration), variant, int(seed), fold)


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
    opened = _opened(context, bench, workspace)
    opened.board.look()
    _print_states(opened)
    if dry_run:
        return
    with locks.held(opened.root / locks.NAME, "this benchmark", report, wait=False):
        scheduling.run(opened.board, report)
    judgement = judging.judge(opened.bench, rows := opened.rows())
    results.write_csv(opened.root / "scores.csv", rows)
    files.write_text(opened.root / "comparison.md", judging.markdown(judgement))
    for line in judging.summary(judgement):
        out().print(line, soft_wrap=True)
    out().print(f"tables: {opened.root / 'comparison.md'}", soft_wrap=True)
    if opened.board.failed:
        raise typer.Exit(1)


def status(
    context: typer.Context, bench: BenchArgument, workspace: o.WorkspaceOption = None
) -> None:
    """Show which jobs of a benchmark are done, run, wait or failed."""
    opened = _opened(context, bench, workspace)
    opened.board.look()
    _print_states(opened)


def stop(context: typer.Context, bench: BenchArgument, workspace: o.WorkspaceOption = None) -> None:
    """Ask the running jobs of a benchmark to save their work and stop."""
    opened = _opened(context, bench, workspace)
    board = opened.board
    board.look()
    board.executor.stop([handle for handles in board.running.values() for handle in handles])
    out().print(f"stopped {counted(len(board.running), 'job')}")


def _opened(context: typer.Context, path: Path, workspace: Path | None) -> _Opened:
    """Resolve everything that a benchmark names, before any job starts."""
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    bench = matrix.read(path)
    found = members(bench, registry)
    datasets = {
        name: open_dataset(name, space.raw, registry, space.preprocessed) for name in bench.datasets
    }
    names = [each.name for each in datasets.values()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path}: two datasets are named {twice[0]}.")
    root = space.raw.parent / _FOLDER / bench.name
    graph = build(bench, found, space, root)
    resolved = registry.resolve("executor", bench.executor.name)
    executor = built(resolved.with_settings(bench.executor.settings))
    blocked = [info.name for info in registry.plugins() if info.status == "blocked"]
    environment = scheduling.environment_of(space.raw, space.preprocessed, blocked)
    board = scheduling.Board(graph, root, executor, resolved.reference, bench.retries, environment)
    return _Opened(bench, found, datasets, graph, board, root)


def _print_states(opened: _Opened) -> None:
    states = opened.board.states()
    stages = dict.fromkeys(job.stage for job in opened.graph.jobs.values())
    table = Table(title=f"{opened.bench.name}: {counted(len(states), 'job')}", title_justify="left")
    columns = get_args(scheduling.State)
    for column in ("stage", *columns):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages:
        counts = Counter(s for n, s in states.items() if opened.graph.jobs[n].stage == stage)
        table.add_row(stage, *(str(counts[column]) for column in columns))
    out().print(table)
