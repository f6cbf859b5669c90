"""`nnunet splits`: show the folds of a dataset, or make them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from nnunet_builtin.datasets.split_files import read_folds, read_groups
from nnunet_builtin.datasets.split_making import grouped_folds, remarks, shuffled_folds
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.splits import FOLDS, Splits, five_folds
from nnunet_core.errors import UsageError, counted, natural_order
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.store.workspace import Workspace

_SHOWN = 8


def splits(
    context: typer.Context,
    dataset: o.DatasetArgument,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take the folds of splits_final.pkl (v1), splits_final.json (v2) or JSON.",
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a header, then case and patient: make folds with no patient on both "
            "sides."
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help=f"Make this many folds; with --groups the default is {FOLDS}."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the folds that exist.")
    ] = False,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Show which cases train and validate each fold; with --from, --groups or --folds, make the
    folds.
    """
    report, space = make_reporter(quiet=as_json), o.workspace_of(workspace)
    data = open_dataset(dataset, space.raw, o.registry_of(context), space.preprocessed)
    path = space.splits(data.name)
    made = _made(data, source, groups, folds)
    if made is None:
        shown = Splits.read(path) if path.is_file() else Splits(folds=five_folds(data.names))
        shown.check(data.names, path)
        state = (
            f"folds of {path}" if path.is_file() else "the folds that the first training will write"
        )
    else:
        shown = made
        made.check(data.names, source or groups or "the new splits")
        state = _write(made, path, overwrite, _trained(space, data))
    for remark in remarks(shown, data.names):
        report.warning(remark)
    if as_json:
        typer.echo(shown.model_dump_json(indent=1))
    else:
        _print(shown, data, state)


def _made(
    data: Dataset, source: Path | None, groups: Path | None, folds: int | None
) -> Splits | None:
    """Return the folds that the options ask for; None when they ask for none."""
    if source is not None:
        if groups is not None or folds is not None:
            raise UsageError("--from takes the folds as they are; leave out --groups and --folds.")
        return read_folds(source)
    if groups is not None:
        return Splits(folds=grouped_folds(read_groups(groups, data.names), folds or FOLDS))
    return None if folds is None else Splits(folds=shuffled_folds(data.names, folds))


def _write(made: Splits, path: Path, overwrite: bool, trained: list[Path]) -> str:
    """Write the folds unless others exist; return what was done.

    Raises:
        UsageError: Other folds exist, and `overwrite` is not given.
    """
    if path.is_file() and not overwrite:
        if Splits.read(path) == made:
            return f"folds of {path}: they were equal already"
        raise UsageError(
            f"{path} exists and holds other folds. {_dependants(trained)} Give --overwrite to "
            "replace the folds; a fold whose cases change is then trained anew, and what was "
            "trained is kept under another name."
        )
    made.write(path)
    note = f" {_dependants(trained)}" if trained else ""
    return f"written: {path}.{note}"


def _trained(space: Workspace, data: Dataset) -> list[Path]:
    """Return the folders of numbered folds of a dataset that are trained, or being trained."""
    found = sorted((space.results / data.name).glob(f"*/*/fold_*/{RUN_FILE}"))
    return [
        path.parent.relative_to(space.results) for path in found if path.parent.name != "fold_all"
    ]


def _dependants(trained: list[Path]) -> str:
    if not trained:
        return "No trained fold depends on it."
    names = ", ".join(str(folder) for folder in trained[:_SHOWN])
    more = ", ..." if len(trained) > _SHOWN else ""
    depend = counted(len(trained), "trained fold depends", "trained folds depend")
    return f"{depend} on it: {names}{more}."


def _print(shown: Splits, data: Dataset, state: str) -> None:
    folds, count = counted(len(shown.folds), "fold"), counted(len(data.names), "case")
    table = Table(
        title=f"{data.name}: {folds} of {count}",
        title_justify="left",
    )
    for column in ("fold", "train", "validate", "validation cases"):
        table.add_column(
            column, justify="left" if column == "validation cases" else "right", overflow="fold"
        )
    for fold, split in enumerate(shown.folds):
        more = f", and {len(split.val) - _SHOWN} more" if len(split.val) > _SHOWN else ""
        cases = Text(", ".join(sorted(split.val, key=natural_order)[:_SHOWN]) + more)
        table.add_row(str(fold), str(len(split.train)), str(len(split.val)), cases)
    console = out()
    console.print(table)
    console.print(state, soft_wrap=True, markup=False)
