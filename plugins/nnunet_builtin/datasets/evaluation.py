"""`nnunet evaluate`: folders of predicted and of reference label maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nnunet_builtin.datasets.naming import list_files
from nnunet_builtin.datasets.reading import FILE, find_label_ending, read_document, read_labels
from nnunet_builtin.datasets.reading import original_values as read_original_values
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.data.dataset import CaseFiles, DatasetContent
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.data.unused import left_out_messages
from nnunet_core.errors import (
    DatasetError,
    MissingFolderError,
    UsageError,
    counted,
    listed,
    natural_order,
)
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import find_dataset, find_reader
from nnunet_core.stages.evaluate import evaluate_files, mean_foreground_dice
from nnunet_core.stages.formats import OriginalValues, find_format


def evaluate(
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(help="Folder of predicted label maps.", show_default=False)
    ],
    references: Annotated[
        Path, typer.Argument(help="Folder of reference label maps.", show_default=False)
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="Dataset, or dataset.json, that declares the labels.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Summary file; default: summary.json beside the predictions."),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing", help="Compare the cases that are in both folders, if others are not."
        ),
    ] = False,
    original_values: Annotated[
        bool,
        typer.Option(
            "--original-values",
            help="The files hold the values from before 'dataset convert --renumber'.",
        ),
    ] = False,
    workspace: o.WorkspaceOption = None,
    processes: o.ProcessesOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Compare predicted with reference label maps: Dice and twelve other overlap metrics per case
    and label.
    """
    registry, report = o.registry_of(context), make_reporter(quiet=as_json)
    declared = _declared(dataset, o.workspace_of(workspace).raw, registry)
    labels, ending = declared.labels, declared.label_ending or declared.ending
    image_format = find_format(ending, registry, declared.label_format)
    if original_values:
        image_format = _original(image_format, declared, dataset)
    with Workers(o.processes_of(processes)) as workers:
        pairs = match_folders(predictions, references, ending, allow_missing, report)
        summary = evaluate_files(pairs, labels, image_format, workers, report)
    target = output or predictions / "summary.json"
    files.write_json(target, summary)
    if as_json:
        typer.echo(json.dumps(summary["results"]["mean"], indent=1))
    else:
        _print(summary, labels, target)


def match_folders(
    predictions: Path,
    references: Path,
    ending: str,
    allow_missing: bool = False,
    report: Reporter | None = None,
) -> list[tuple[Path, Path]]:
    """Return (prediction, reference) of two folders of label files `CASE.ext`, in natural order.

    Args:
        predictions: Folder of label files.
        references: Folder of label files.
        ending: Of the files to compare, with the leading dot; hidden files are not looked at.
        allow_missing: Leave out cases that are in one folder only, with a warning.
        report: Where warnings go.

    Raises:
        DatasetError: A folder is missing or empty, or the folders do not hold the same cases; all
            differences are told.
    """
    report = report or Silence()
    predicted, true = _label_files(predictions, ending), _label_files(references, ending)
    problems = []
    for folder, mine, others in ((predictions, predicted, true), (references, true, predicted)):
        if missing := sorted(others.keys() - mine.keys(), key=natural_order):
            names = listed([f"{name}{ending}" for name in missing])
            problems.append(f"{folder} lacks {len(missing)} of them: {names}")
    both = sorted(predicted.keys() & true.keys(), key=natural_order)
    if problems and not (allow_missing and both):
        hint = (
            f" --allow-missing compares the {counted(len(both), 'case')} of both." if both else ""
        )
        raise DatasetError(
            f"Predictions and references must be the same cases. {'; '.join(problems)}. "
            f"Predict what is missing, or evaluate folders that hold the same file names.{hint}"
        )
    if problems:
        report.warning(f"{'; '.join(problems)}. Only cases of both folders are compared.")
    for message in left_out_messages(
        [CaseFiles(name, (path,)) for found in (predicted, true) for name, path in found.items()]
    ):
        report.warning(message)
    return [(predicted[name], true[name]) for name in both]


def _original(image_format: ImageFormat, declared: DatasetContent, dataset: str) -> OriginalValues:
    if not declared.original_values:
        raise UsageError(
            f"The labels of {dataset} were not renumbered; leave out --original-values."
        )
    return OriginalValues(image_format, declared.original_values)


def _declared(dataset: str, raw: Path, registry: Registry) -> DatasetContent:
    """Return what is known of a dataset's label files; of nnU-Net's layouts, images need not be
    there.
    """
    path = Path(dataset)
    if not dataset.endswith(".json"):
        folder = find_dataset(dataset, raw, registry)
        path = folder / FILE
        if not path.is_file():
            return find_reader(folder, registry).read(folder, registry)
    document = read_document(path)
    labels = read_labels(document, path)
    return DatasetContent(
        channels=(),
        labels=labels,
        training=(),
        label_ending=find_label_ending(path.parent, document, registry),
        label_format=document.get("label_format"),
        original_values=read_original_values(document, labels, path),
    )


def _label_files(folder: Path, ending: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise MissingFolderError(folder, f"It should hold label files named CASE{ending}.")
    found = list_files(folder, ending)
    if not found:
        there = sorted((p.name for p in folder.iterdir() if p.is_file()), key=natural_order)
        raise DatasetError(
            f"{folder} holds no file ending in '{ending}', that of the dataset's labels. It holds: "
            f"{listed(there) or 'nothing'}. Choose another folder, or convert the files."
        )
    return found


def _print(summary: dict[str, Any], labels: Labels, target: Path) -> None:
    table = Table(title=counted(len(summary["results"]["all"]), "case"), title_justify="left")
    columns = ("Dice", "Jaccard", "Precision", "Recall")
    for column in ("label", *columns):
        table.add_column(column)
    names = {str(value): name for value, name in labels.names.items()}
    for key, metrics in summary["results"]["mean"].items():
        table.add_row(names.get(key, key), *(_number(metrics[column]) for column in columns))
    out().print(table)
    out().print(
        f"mean foreground Dice {mean_foreground_dice(summary):.4f}; every metric: {target}",
        soft_wrap=True,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
