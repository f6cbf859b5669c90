"""`nnunet evaluate`: folders of predicted and of reference label maps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from nnunet_builtin.evaluation.console import describe, print_table
from nnunet_builtin.evaluation.documents import Evaluation, write
from nnunet_builtin.evaluation.lesions import CONNECTIVITIES, LesionRule
from nnunet_builtin.evaluation.measuring import TOLERANCE, Measuring, foreground_targets
from nnunet_builtin.evaluation.plots import BOXES, draw_boxes
from nnunet_builtin.evaluation.scores import GROUPS
from nnunet_builtin.evaluation.statistics import Row, name_of
from nnunet_builtin.evaluation.worst import Gallery, images_beside
from nnunet_cli import options as o
from nnunet_cli.groups import Group, grouped
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.data.dataset import DatasetContent
from nnunet_core.data.folders import match_folders
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.errors import MissingFolderError, UsageError, nearest
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.dataset import describe_labels
from nnunet_core.stages.evaluate import compare_files, mean_foreground_dice, summarise
from nnunet_core.stages.formats import OriginalValues, find_format
from nnunet_core.store.predictions import RECORD, PredictionRecord
from nnunet_core.store.summaries import SUMMARY


@dataclass(frozen=True)
class _Asked:
    """What is measured, as it was typed."""

    metrics: str
    tolerances: Sequence[str]
    lesions: LesionRule


def _asked(
    metrics: Annotated[
        str, typer.Option(help="overlap, surface, volume, lesions with commas between, or all.")
    ] = "all",
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MM or LABEL=MM",
            help="Of the surface Dice; repeatable. Default: that of dataset.json, else 1.",
        ),
    ] = None,
    lesion_overlap: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Least intersection over union of matched lesions, above 0."
        ),
    ] = LesionRule.overlap,
    lesion_connectivity: Annotated[
        int, typer.Option(help="Neighbours of a voxel in one lesion: 6, 18 or 26.")
    ] = LesionRule.connectivity,
) -> _Asked:
    if lesion_connectivity not in CONNECTIVITIES:
        raise UsageError(f"--lesion-connectivity got {lesion_connectivity}; it takes 6, 18 or 26.")
    if lesion_overlap == 0:
        raise UsageError(
            "--lesion-overlap must be above 0: lesions that do not touch never match. Give a small "
            "number, such as 0.000001, to count any common voxel."
        )
    return _Asked(metrics, tolerance or [], LesionRule(lesion_connectivity, lesion_overlap))


@dataclass(frozen=True)
class _Matching:
    """Which files are compared, and how they are read."""

    allow_missing: bool
    original_values: bool


def _matching(
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
) -> _Matching:
    return _Matching(allow_missing, original_values)


@dataclass(frozen=True)
class _Pictures:
    """What is drawn: how many cases, with the images of which folder, or nothing."""

    worst: int
    images: Path | None
    drawn: bool


def _pictures(
    worst: Annotated[int, typer.Option(min=0, help="Worst cases to draw.")] = 3,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of their images; default: imagesX beside references in labelsX."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw box plots and worst cases.")
    ] = True,
) -> _Pictures:
    if images is not None and not images.is_dir():
        raise MissingFolderError(images, "--images names the folder of the images of the cases.")
    return _Pictures(worst, images, pictures)


@grouped
def evaluate(
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(help="Folder of predicted label maps.", show_default=False)
    ],
    references: Annotated[
        Path, typer.Argument(help="Folder of reference label maps.", show_default=False)
    ],
    asked: Annotated[_Asked, Group(_asked)],
    matching: Annotated[_Matching, Group(_matching)],
    pictures: Annotated[_Pictures, Group(_pictures)],
    dataset: o.LabelsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Summary file (.json), or a folder for summary.json; default: that of the "
            "predictions. The other files go into a folder beside it: evaluation/, or "
            "NAME_evaluation/."
        ),
    ] = None,
    workspace: o.WorkspaceOption = None,
    processes: o.ProcessesOption = None,
    memory_gb: o.MemoryOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Compare predicted with reference label maps: overlap, surfaces in mm, volumes and lesions per
    case and label, with intervals of the means, tables, box plots and pictures of the worst cases.
    """
    registry, report = o.registry_of(context), make_reporter(quiet=as_json)
    declared, said = _declared(dataset, predictions, workspace, registry)
    measuring = _measuring(declared, asked)
    label_format, ending = _label_format(declared, registry, matching.original_values, said)
    target = _summary_file(output or predictions)
    pairs = match_folders(predictions, references, ending, matching.allow_missing, report)
    with o.workers_of(processes, memory_gb, report) as workers:
        compared = compare_files(pairs, declared.labels, label_format, workers, report, measuring)
    summary = summarise([pair.result for pair in compared])
    files.write_json(target, summary)
    evaluation = Evaluation.of(compared, measuring, ending, said, (predictions, references))
    folder, drawn = _folder_beside(target), []
    worst = evaluation.worst_cases(pictures.worst)
    if pictures.drawn and evaluation.statistics:
        gallery = _gallery(pairs, declared, label_format, pictures.images, registry)
        drawn = _draw(evaluation, worst, gallery, folder, registry, report)
    write(evaluation, folder, drawn)
    if as_json:
        typer.echo(json.dumps(evaluation.document(), indent=1))
        return
    print_table(evaluation)
    _print_rest(worst, declared.labels, mean_foreground_dice(summary), f"{target}, {folder}")


def _declared(
    dataset: str | None, predictions: Path, workspace: Path | None, registry: Registry
) -> tuple[DatasetContent, str]:
    """Return what declares the labels, and what it is called.

    Raises:
        UsageError: Neither a dataset nor the predictions say it.
    """
    made = _of_predictions(predictions)
    if dataset is not None:
        declared = describe_labels(dataset, o.workspace_of(workspace).raw, registry)
        if made is not None and made.labels == declared.labels:
            tolerances = {**made.tolerances, **declared.tolerances}
            declared = replace(declared, tolerances=tolerances)
        return declared, dataset
    if made is None:
        raise UsageError(
            f"{predictions} has no {RECORD}, so that nothing says what its labels mean. Give the "
            "dataset, or a dataset.json: --dataset"
        )
    return made, str(predictions / RECORD)


def _of_predictions(folder: Path) -> DatasetContent | None:
    """Return what a folder of predictions says of its label maps, and how its model's dataset wants
    them judged.
    """
    if not (folder / RECORD).is_file():
        return None
    record = PredictionRecord.read(folder / RECORD)
    return DatasetContent(
        channels=(),
        labels=record.labels,
        training=(),
        ending=record.label_ending,
        label_format=record.label_format,
        tolerances=record.tolerances,
    )


def _summary_file(output: Path) -> Path:
    """Return the file that an output is, or holds: a folder is given one named summary.json."""
    if output.suffix == ".json" and not output.is_dir():
        return output
    if output.is_file():
        raise UsageError(
            f"--output got {output}, a file that is no .json. Name a .json file or a folder."
        )
    return output / SUMMARY


def _print_rest(
    worst: Sequence[Sequence[Row]], labels: Labels, dice: float, files_written: str
) -> None:
    if worst:
        shown = "; ".join(describe(rows, labels) for rows in worst)
        out().print(f"worst cases: {shown}", soft_wrap=True)
    line = f"mean foreground Dice {dice:.4f}; every metric: {files_written}"
    out().print(line, soft_wrap=True)


def _measuring(declared: DatasetContent, asked: _Asked) -> Measuring:
    """Return what is measured: the tolerances of the command line go before those of the dataset,
    and these before those of the model that predicted.
    """
    groups = tuple(dict.fromkeys(word.strip() for word in asked.metrics.split(",") if word.strip()))
    if unknown := [word for word in groups or [""] if word not in {*GROUPS, "all"}]:
        raise UsageError(
            f"--metrics got '{asked.metrics}': there are no metrics '{unknown[0]}'."
            f"{nearest(unknown[0], [*GROUPS, 'all'])} It takes {', '.join(GROUPS)} with commas "
            "between them, or all."
        )
    labels = declared.labels
    names = {target: name_of(target, labels) for target in foreground_targets(labels)}
    found = {target: declared.tolerances.get(name, TOLERANCE) for target, name in names.items()}
    for text in asked.tolerances:
        found |= _tolerances(text, names)
    chosen = GROUPS if "all" in groups else ("overlap", *(g for g in GROUPS[1:] if g in groups))
    return Measuring(labels, found, chosen, asked.lesions)


def _tolerances(text: str, names: Mapping[str, str]) -> dict[str, float]:
    """Parse `MM` or `LABEL=MM` to {target: mm}."""
    name, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(
            f"--tolerance got '{text}'; it takes millimetres above 0, or LABEL=MM, for example "
            f"{next(iter(names.values()), 'liver')}=2."
        )
    if not equals:
        return dict.fromkeys(names, value)
    if name not in names.values():
        raise UsageError(
            f"--tolerance got '{text}': there is no label '{name}'."
            f"{nearest(name, names.values())} Labels: {', '.join(names.values())}."
        )
    return {target: value for target, known in names.items() if known == name}


def _label_format(
    declared: DatasetContent, registry: Registry, original_values: bool, dataset: str
) -> tuple[ImageFormat, str]:
    """Return what reads the label files, and their ending."""
    ending = declared.label_ending or declared.ending
    found = find_format(ending, registry, declared.label_format)
    if not original_values:
        return found, ending
    if not declared.original_values:
        raise UsageError(
            f"The labels of {dataset} were not renumbered; leave out --original-values."
        )
    return OriginalValues(found, declared.original_values), ending


def _folder_beside(summary: Path) -> Path:
    """Return the folder of what is written beside a summary: `evaluation` for summary.json."""
    return summary.with_name(
        "evaluation" if summary.name == SUMMARY else f"{summary.stem}_evaluation"
    )


def _gallery(
    pairs: Sequence[tuple[Path, Path]],
    declared: DatasetContent,
    label_format: ImageFormat,
    images: Path | None,
    registry: Registry,
) -> Gallery:
    return Gallery(
        pairs=pairs,
        labels=declared.labels,
        label_format=label_format,
        label_ending=declared.label_ending or declared.ending,
        images=images or images_beside(pairs[0][1].parent),
        image_format=find_format(declared.ending, registry, declared.image_format),
        image_ending=declared.ending,
    )


def _draw(
    evaluation: Evaluation,
    worst: Sequence[Sequence[Row]],
    gallery: Gallery,
    folder: Path,
    registry: Registry,
    report: Reporter,
) -> list[str]:
    """Draw box plots and the worst cases into a folder; return the names of the files."""
    titles = {rows[0]: describe(rows, gallery.labels) for rows in worst}
    draw_boxes(evaluation, folder / BOXES)
    return [BOXES, *gallery.draw(titles, folder, registry.hooks, report)]
