"""`nnunet evaluate`: folders of predicted and of reference label maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nnunet_builtin.datasets.naming import list_files
from nnunet_builtin.datasets.reading import FILE, find_label_ending, read_document, read_labels
from nnunet_cli import options as o
from nnunet_cli.reporter import out
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError, MissingFolderError, listed
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import find_dataset, find_reader
from nnunet_core.stages.evaluate import evaluate_files, mean_foreground_dice
from nnunet_core.stages.formats import find_format


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
    workspace: o.WorkspaceOption = None,
    processes: o.ProcessesOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Compare predicted with reference label maps: Dice and twelve other overlap metrics per case
    and label.
    """
    registry = o.registry_of(context)
    labels, ending, named = _declared(dataset, o.workspace_of(workspace).raw, registry)
    image_format = find_format(ending, registry, named)
    with Workers(o.processes_of(processes)) as workers:
        summary = evaluate_folders(predictions, references, labels, image_format, ending, workers)
    target = output or predictions / "summary.json"
    files.write_json(target, summary)
    if as_json:
        typer.echo(json.dumps(summary["results"]["mean"], indent=1))
    else:
        _print(summary, labels, target)


def evaluate_folders(
    predictions: Path,
    references: Path,
    labels: Labels,
    image_format: ImageFormat,
    ending: str,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Compare two folders of label files `CASE.ext` with the same names; return the summary.json
    document.

    Args:
        predictions: Folder of label files.
        references: Folder of label files.
        labels: What to evaluate.
        image_format: Reads the files.
        ending: Of the files to compare, with the leading dot; other files and hidden files are not
            looked at.
        workers: Processes to compare cases in; None does it in this one.

    Raises:
        DatasetError: A folder is missing or empty, or the folders do not hold the same cases; all
            differences are told.
        ImageError: A file is unreadable, has more than one channel or other values than integers,
            or shapes differ.
    """
    predicted, true = _label_files(predictions, ending), _label_files(references, ending)
    problems = []
    for folder, mine, others in ((predictions, predicted, true), (references, true, predicted)):
        if missing := sorted(f"{name}{ending}" for name in others.keys() - mine.keys()):
            problems.append(f"{folder} lacks {len(missing)} of them: {listed(missing)}")
    if problems:
        raise DatasetError(
            f"Predictions and references must be the same cases. {'; '.join(problems)}. "
            "Predict what is missing, or evaluate folders that hold the same file names."
        )
    pairs = [(path, true[case]) for case, path in predicted.items()]
    return evaluate_files(pairs, labels, image_format, workers)


def _declared(dataset: str, raw: Path, registry: Registry) -> tuple[Labels, str, str | None]:
    """Return labels, their files' ending and the name of their format; of nnU-Net's layouts, images
    need not be there.
    """
    path = Path(dataset)
    if not dataset.endswith(".json"):
        folder = find_dataset(dataset, raw, registry)
        path = folder / FILE
        if not path.is_file():
            found = find_reader(folder, registry).read(folder, registry)
            return found.labels, found.label_ending or found.ending, found.label_format
    document = read_document(path)
    ending = find_label_ending(path.parent, document, registry)
    return read_labels(document, path), ending, document.get("label_format")


def _label_files(folder: Path, ending: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise MissingFolderError(folder, f"It should hold label files named CASE{ending}.")
    found = list_files(folder, ending)
    if not found:
        raise DatasetError(
            f"{folder} holds no file ending in '{ending}'. Choose another folder or another file "
            "ending."
        )
    return found


def _print(summary: dict[str, Any], labels: Labels, target: Path) -> None:
    table = Table(title=f"{len(summary['results']['all'])} cases", title_justify="left")
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
