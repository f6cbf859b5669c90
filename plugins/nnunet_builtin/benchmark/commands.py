"""`nnunet benchmark run`, `status`, `stop` and `add`."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from nnunet_builtin.benchmark import foreign, progress, scheduling
from nnunet_builtin.benchmark.foreign_files import OTHERS, Source, find_dataset
from nnunet_builtin.benchmark.opening import Opened, opened, words
from nnunet_builtin.judging import tables
from nnunet_builtin.judging.judgement import Judgement, summary
from nnunet_builtin.judging.rows import Row
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.contracts.abilities import ShowsScripts, ability
from nnunet_core.errors import StorageError, UsageError, counted, listed, printable
from nnunet_core.runtime import files, locks
from nnunet_core.runtime.reporting import Reporter

BenchArgument = Annotated[
    Path, typer.Argument(help="bench.toml: datasets, variants, folds, seeds.", show_default=False)
]
_WATCH_SECONDS, _WAIT_SECONDS = 2.0, 600.0


def run(
    context: typer.Context,
    bench: BenchArgument,
    *,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the graph of jobs, what is done, what is stale and why, and what the rest "
            "will take; ask the executor whether it could run them; start nothing.",
        ),
    ] = False,
    workspace: o.WorkspaceOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print every job as JSON.")
    ] = False,
) -> None:
    """Train and compare variants over datasets, folds and seeds. What is done and still current is
    not done again; a stopped benchmark goes on.
    """
    if as_json and not dry_run:
        raise UsageError("--json prints the jobs of a --dry-run; 'benchmark status' has one, too.")
    report = make_reporter(quiet=as_json)
    found = opened(bench, o.registry_of(context), o.workspace_of(workspace), report)
    found.board.look()
    if as_json:
        typer.echo(json.dumps(progress.document(found.board), indent=1))
        scheduling.check(found.board)
    elif dry_run:
        _print_graph(found)
        progress.warn_of_idle_cards(found.board, report)
        scheduling.check(found.board)
    else:
        _run(found, words(bench, workspace), report)


def _run(found: Opened, rest: str, report: Reporter) -> None:
    board = found.board
    out().print(progress.states_table(board, _title(found)))
    for line in progress.stale_lines(board):
        report.message(line)
    progress.warn_of_idle_cards(board, report)
    if len(board.done) < len(board.graph.jobs):
        report.message(
            f"In another terminal, 'nnunet benchmark status {rest} --watch' shows what runs, and "
            f"'nnunet benchmark stop {rest}' stops it."
        )
    with locks.held(found.root / locks.NAME, "this benchmark", report, wait=False):
        scheduling.run(board, report)
        judgement, rows = found.judged()
        tables.write(judgement, rows, found.root)
    _print_judgement(judgement)
    out().print(
        f"tables: {found.root / 'comparison.md'}; a page: nnunet benchmark report {rest}",
        soft_wrap=True,
    )
    if board.failed:
        for name in board.failed:
            report.warning(f"failed: {scheduling.described(board, board.graph.jobs[name])}")
        blocked = len(board.graph.blocked_by(set(board.failed)))
        report.warning(
            f"{counted(len(board.failed), 'job')} failed, {counted(blocked, 'job')} could not be "
            "run for that reason. The same command tries them again."
        )
        raise typer.Exit(1)


def _print_judgement(judgement: Judgement) -> None:
    for table in tables.means(judgement):
        shown = Table(title=table.title, title_justify="left")
        for column in table.columns:
            shown.add_column(column.name, justify="left" if column.is_text else "right")
        for row in table.shown():
            shown.add_row(*map(printable, row))
        out().print(shown)
        place = table.keys["dataset"], table.keys["configuration"]
        for line in judgement.deviations.get(place, ()):
            out().print(f"- {line}", soft_wrap=True, markup=False)
    for line in summary(judgement):
        out().print(line, soft_wrap=True, markup=False)


def _print_graph(found: Opened) -> None:
    board = found.board
    out().print(progress.graph_table(board, _title(found)))
    for line in progress.stale_lines(board):
        out().print(line, soft_wrap=True, markup=False)
    out().print(progress.estimate(board).words(), soft_wrap=True)
    there = next(folder for folder in found.root.parents if folder.is_dir())
    free = shutil.disk_usage(there).free / 1e9
    out().print(f"Free disk space: {free:.0f} GB.", soft_wrap=True)
    shows = ability(board.executor, ShowsScripts)
    ready = [board.graph.jobs[name] for name, s in board.states().items() if s == "ready"]
    for script in shows.scripts([board.task(job) for job in ready]) if shows else ():
        out().print(script, soft_wrap=True, markup=False, highlight=False)


def status(
    context: typer.Context,
    bench: BenchArgument,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until everything has ended.")
    ] = False,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Show which jobs of a benchmark are done, run, wait or failed, with the last lines of their
    logs, and the time that is left.
    """
    found = opened(bench, o.registry_of(context), o.workspace_of(workspace), make_reporter(True))
    found.board.look()
    if as_json:
        typer.echo(json.dumps(progress.document(found.board), indent=1))
        return
    rest = words(bench, workspace)
    if not watch:
        out().print(_view(found, rest), soft_wrap=True)
        return
    with Live(_view(found, rest), console=out(), auto_refresh=False) as live:
        goes_on = True
        while goes_on:  # once more after the end, to show that
            goes_on = bool(found.board.running or locks.holder(found.root / locks.NAME))
            time.sleep(_WATCH_SECONDS if goes_on else 0)
            found.board.look()
            live.update(_view(found, rest), refresh=True)


def _view(found: Opened, rest: str) -> progress.RenderableType:
    driver = locks.holder(found.root / locks.NAME)
    return progress.view(found.board, _title(found), driver, f"nnunet benchmark run {rest}")


def _title(found: Opened) -> str:
    return f"{found.bench.name}: {counted(len(found.graph.jobs), 'job')}"


def stop(context: typer.Context, bench: BenchArgument, workspace: o.WorkspaceOption = None) -> None:
    """Ask whoever runs a benchmark to stop: jobs save their work, and 'benchmark run' goes on."""
    report = make_reporter()
    found = opened(bench, o.registry_of(context), o.workspace_of(workspace), report)
    board, end = found.board, time.monotonic() + _WAIT_SECONDS
    board.look()
    number = len(board.running)
    if not number and not locks.holder(found.root / locks.NAME):
        out().print("Nobody runs it, and none of its jobs runs: there is nothing to stop.")
        return
    if driver := locks.holder(found.root / locks.NAME):
        report.message(f"asking {driver} to stop; jobs may take a while to save their work")
        files.write_text(found.root / scheduling.STOP, "")
    while driver := locks.holder(found.root / locks.NAME):
        if time.monotonic() > end:
            raise StorageError(
                f"{driver} has not stopped after {_WAIT_SECONDS / 60:.0f} minutes. 'benchmark "
                "status' shows what still runs."
            )
        time.sleep(_WATCH_SECONDS / 4)
    board.look()  # what another driver left behind when it was killed
    board.stop()
    out().print(
        f"stopped {counted(number, 'job')}; it goes on with: nnunet benchmark run "
        f"{words(bench, workspace)}",
        soft_wrap=True,
    )


def add(
    context: typer.Context,
    bench: BenchArgument,
    results: Annotated[
        Path,
        typer.Argument(
            help="summary.json of nnU-Net v1 or v2, evaluation.json of 'nnunet evaluate', or a CSV "
            "with the columns case, label, and metric and value, or a column for each metric "
            "(Dice, Surface Dice, HD95, ASSD); columns dataset, variant, configuration, seed and "
            "fold tell runs apart.",
            show_default=False,
        ),
    ],
    *,
    variant: Annotated[
        str,
        typer.Option(help="What to call it; default: the name of the file.", show_default=False),
    ] = "",
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset that it is of, where the benchmark has several: name, id or folder."
        ),
    ] = None,
    configuration: Annotated[
        str,
        typer.Option(
            "--configuration",
            "-c",
            help="Configuration that it is compared with; default: the only one there is.",
            show_default=False,
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Which of several runs it is.")] = 0,
    fold: Annotated[str, typer.Option(help="Fold, where it is of one.", show_default=False)] = "",
    workspace: o.WorkspaceOption = None,
) -> None:
    """Add the results of another program to a benchmark; they are marked as foreign in its tables,
    and replace those of the same variant, dataset, seed and fold.
    """
    report = make_reporter()
    found = opened(bench, o.registry_of(context), o.workspace_of(workspace), report)
    source = Source(dataset, configuration, variant, seed, fold)
    rows = _read(results, _found(source, found), found, report)
    foreign.keep(rows, found.root)
    runs = {(row.variant, row.dataset, row.seed) for row in rows}
    out().print(
        f"added {counted(len(rows), 'score')} of {counted(len(runs), 'run')}; 'nnunet benchmark "
        f"run {words(bench, workspace)}' puts them into the tables",
        soft_wrap=True,
    )


def _found(source: Source, found: Opened) -> Source:
    """Return what a file is of, with the names that the benchmark has."""
    datasets = {each.dataset.name: each.dataset for each in found.subjects.values()}
    if (name := source.dataset) is not None:
        written = found.subjects.get(name)
        name = find_dataset(written.dataset.name if written else name, "--dataset", datasets).name
    known = dict.fromkeys(n for each in found.subjects.values() for n in each.configurations)
    if not source.configuration and len(known) > 1:
        raise UsageError(f"Name what it is compared with: --configuration {' or '.join(known)}")
    return replace(source, dataset=name, configuration=source.configuration or next(iter(known)))


def _read(results: Path, source: Source, found: Opened, report: Reporter) -> list[Row]:
    """Return the rows of a file that can be compared; say what cannot."""
    subjects = {each.dataset.name: each for each in found.subjects.values()}
    datasets = {name: each.dataset for name, each in subjects.items()}
    cases = {name: each.scored_cases() for name, each in subjects.items()}
    read = foreign.read_results(results, source, datasets, cases)
    known = {name: each.scored_configurations() for name, each in subjects.items()}
    foreign.check_configurations(read.rows, known, results)
    if taken := {row.variant for row in read.rows} & set(found.members):
        raise UsageError(
            f"'{min(taken)}' is a variant of the benchmark itself. Call it otherwise: --variant"
        )
    for name, labels in foreign.lacking(read.rows, datasets).items():
        report.warning(
            f"{name}: there is no score of {listed(sorted(labels))} in some cases; the mean over "
            "labels of these is left out, since it would be of something else."
        )
    _tell_left_out(read.left_out, report)
    return read.rows


def _tell_left_out(names: Sequence[str], report: Reporter) -> None:
    """Say which metrics are not taken; of those that could be mistaken for ours, why."""
    for name in (name for name in names if name in OTHERS):
        report.warning(
            f"'{name}' is left out, it is {OTHERS[name]}. To compare surfaces, measure the "
            "predictions with 'nnunet evaluate' and add its evaluation.json."
        )
    if others := [printable(name) for name in names if name not in OTHERS]:
        report.message(f"left out, since the benchmark does not judge it: {', '.join(others)}")
