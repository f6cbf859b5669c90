"""`nnunet dataset`: check, convert and list raw datasets."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nnunet_builtin.datasets.conversion import convert as convert_source
from nnunet_builtin.datasets.conversion import (
    default_destination,
    find_folders,
    find_renumbered,
    find_source,
    parse_labels,
)
from nnunet_builtin.datasets.verification import verify as verify_dataset
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.splits import ALL, FOLDS
from nnunet_core.errors import NnunetError, UsageError, counted, natural_order
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import fitting_readers, open_dataset
from nnunet_core.store.verification import FILE, Verification


def verify(
    context: typer.Context,
    dataset: o.DatasetArgument,
    workspace: o.WorkspaceOption = None,
    processes: o.ProcessesOption = None,
    memory_gb: o.MemoryOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Check a raw dataset: files, geometry, label values, NaN, duplicates. Exit code 1 when
    something must be corrected.
    """
    registry, report = o.registry_of(context), make_reporter(quiet=as_json)
    space = o.workspace_of(workspace)
    data = open_dataset(dataset, space.raw, registry, space.preprocessed)
    with o.workers_of(processes, memory_gb, report) as workers:
        result = verify_dataset(data, workers, report)
    _keep(result, data, space.preprocessed, report)
    if as_json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        _print(data, result)
    if not result.ok:
        raise typer.Exit(1)


def _keep(result: Verification, data: Dataset, preprocessed: Path, report: Reporter) -> None:
    """Write what was found where reports look for it; a disk that cannot be written is no reason to
    fail.
    """
    path = preprocessed / data.name / FILE
    try:
        result.model_copy(update={"dataset_digest": data.digest}).write(path)
    except NnunetError as error:
        report.warning(f"what was found is not kept for reports: {error}")


def convert(
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Dataset folder of the decathlon, v1 or v2 layout; or use --images and --labels."
        ),
    ] = None,
    to: Annotated[
        str, typer.Option(help="Layout of the result: v2 (DatasetXXX_Name) or v1 (TaskXXX_Name).")
    ] = "v2",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of images CASE.ext or CASE_0000.ext, or of DICOM series."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of labels CASE.ext, or DICOM SEG files; goes with --images."),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(help="Name of a channel of --images, in order; repeatable. CT, MRI, ..."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A label of --labels, e.g. liver=1; repeatable."),
    ] = None,
    renumber: Annotated[
        bool,
        typer.Option(
            "--renumber",
            help="Map label values that are not consecutive to 0, 1, 2, ...; predictions can "
            "have the original ones again (--restore-values).",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Dataset folder to make; default: in the workspace's raw folder."),
    ] = None,
    dataset_id: Annotated[
        int | None, typer.Option("--id", help="Dataset id, when the folder name has none.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Dataset name, when the folder name is not it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a dataset that exists.")] = False,
    workspace: o.WorkspaceOption = None,
    processes: o.ProcessesOption = None,
) -> None:
    """Convert a dataset to the layout of nnU-Net v2 or v1: 4D files, v1, v2, plain folders, DICOM.
    Sources stay as they are.
    """
    registry, report = o.registry_of(context), make_reporter()
    _check_sources(source, images, labels, bool(channel or label))
    folder = source.absolute() if source is not None else None
    place = functools.partial(
        default_destination, raw=o.workspace_of(workspace).raw, dataset_id=dataset_id, name=name
    )
    with Workers(o.processes_of(processes), report=report) as workers:
        if images is not None and labels is not None:
            named, destination = parse_labels(label or ()), output or place(None, layout=to)
            found = find_folders(images, labels, registry, channel or (), named, renumber, workers)
        else:
            place_of = folder or Path()
            if renumber:
                found = find_renumbered(place_of, registry, workers)
                _warn_of_tests(place_of, report)
            else:
                found = find_source(place_of, registry)
            destination = output or place(folder, layout=to)
        report.message(found.describe())
        with report.track("convert", len(found.training) + len(found.test)) as tracker:
            done = functools.partial(tracker.advance, 1)
            made = convert_source(found, destination, to, overwrite, workers, done)
    out().print(f"{made}", soft_wrap=True)


def _warn_of_tests(folder: Path, report: Reporter) -> None:
    if (folder / "imagesTs").is_dir():
        report.warning(f"{folder / 'imagesTs'} stays as it is: only training cases are renumbered.")


def _check_sources(
    source: Path | None, images: Path | None, labels: Path | None, described: bool
) -> None:
    """Raise UsageError unless there is either a dataset folder, or images with labels."""
    if (source is None) == (images is None) or (images is None) != (labels is None):
        raise UsageError(
            "Give either a dataset folder (decathlon, v1 or v2 layout), or --images DIR with "
            f"--labels DIR; got folder {source}, --images {images}, --labels {labels}."
        )
    if source is not None and described:
        raise UsageError(
            f"--channel and --label go with --images; {source / 'dataset.json'} says these things."
        )


def list_datasets(
    context: typer.Context, workspace: o.WorkspaceOption = None, as_json: o.JsonOption = False
) -> None:
    """List the datasets of the workspace's raw folder: channels, labels and number of training
    cases.
    """
    registry, raw, rows = o.registry_of(context), o.workspace_of(workspace).raw, []
    folders = [path for path in raw.iterdir() if path.is_dir()] if raw.is_dir() else []
    folders.sort(key=lambda path: natural_order(path.name))
    for folder in folders:
        if not fitting_readers(folder, registry):
            continue
        try:
            rows.append(_facts(open_dataset(str(folder), raw, registry)))
        except NnunetError as error:
            rows.append({"name": folder.name, "error": str(error)})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(title=f"{counted(len(rows), 'dataset')} in {raw}", title_justify="left")
    for column in ("name", "channels", "labels", "cases", "files"):
        table.add_column(column, overflow="fold")
    for row in rows:
        if "error" in row:
            table.add_row(row["name"], f"unusable: {row['error']}", "", "", "")
        else:
            table.add_row(
                row["name"],
                ", ".join(row["channels"]),
                ", ".join(row["labels"]),
                str(row["cases"]),
                row["file_ending"],
            )
    out().print(table)


def _facts(dataset: Dataset) -> dict[str, Any]:
    """Return what `nnunet dataset list` shows of a dataset."""
    return {
        "name": dataset.name,
        "channels": list(dataset.channels),
        "labels": list(dataset.labels.named),
        "cases": len(dataset.training),
        "file_ending": dataset.ending,
    }


def _print(data: Dataset, result: Verification) -> None:
    console = out()
    table = Table(
        title=f"{result.dataset}: {counted(len(result.cases), 'readable training case')}",
        title_justify="left",
    )
    for column in ("", "smallest", "largest"):
        table.add_column(column)
    if result.cases:
        _add_ranges(table, result)
    console.print(table)
    for value, count in result.voxels.items():
        present = sum(case.voxels.get(value, 0) > 0 for case in result.cases)
        console.print(
            f"label {value} ({data.labels.names.get(value, 'ignore')}): {count} voxels in "
            f"{counted(present, 'case')}"
        )
    for warning in result.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, markup=False)
    if (count := len(data.training)) < FOLDS:
        own = f"'nnunet splits {data.name} --folds {count}' makes fewer, " if count > 1 else ""
        console.print(
            f"warning: {counted(count, 'case')} cannot make {FOLDS} folds, which validate at least "
            f"one case each; {own}'--folds {ALL}' trains on every case without validation",
            soft_wrap=True,
            markup=False,
        )
    for error in result.errors:
        console.print(f"error: {error}", soft_wrap=True, markup=False)
    console.print(
        "the dataset can be used"
        if result.ok
        else f"{counted(len(result.errors), 'error')} to correct"
    )


def _add_ranges(table: Table, result: Verification) -> None:
    for name, (low, high) in (("shape", result.shape_range), ("spacing, mm", result.spacing_range)):
        table.add_row(
            f"{name} (z, y, x)",
            " x ".join(f"{v:g}" for v in low),
            " x ".join(f"{v:g}" for v in high),
        )
    for channel, (lowest, highest) in enumerate(zip(*result.intensity_range, strict=True)):
        table.add_row(f"intensity, channel {channel}", f"{lowest:g}", f"{highest:g}")
