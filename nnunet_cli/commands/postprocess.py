"""`nnunet postprocess`: fit a postprocessor on folders, or apply one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nnunet_cli import options as o
from nnunet_cli.commands.find_best import decision, finite
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.data.folders import match_folders
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.errors import UsageError, counted
from nnunet_core.prediction.averaging import LabelFiles
from nnunet_core.prediction.ensemble import format_of, opened
from nnunet_core.prediction.postprocess import FILE, Cleaning, clean_folder, fit_folder, kind_of
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.dataset import describe_labels
from nnunet_core.stages.evaluate import evaluate_files, mean_foreground_dice
from nnunet_core.stages.select import dice_by_name
from nnunet_core.store.postprocessing import read_decision

_Pairs = Sequence[tuple[Path, Path]]


def postprocess(
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(help="Folder of label maps to clean.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Argument(help="Folder that cleaned ones are written to.", show_default=False)
    ],
    references: Annotated[
        Path | None,
        typer.Option(
            help="Folder of reference label maps: the postprocessor decides from them what helps.",
            show_default=False,
        ),
    ] = None,
    postprocessor: Annotated[
        str | None, typer.Option(help="Postprocessor; default: largest_component.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="postprocessor.FIELD=VALUE",
            help="A setting of the postprocessor, e.g. postprocessor.size=50; repeatable.",
        ),
    ] = None,
    postprocessing: Annotated[
        Path | None,
        typer.Option(
            help="File of what was decided before, to apply: postprocessing.json of this command, "
            "of nnU-Net v1 or v2, or postprocessing/NAME-DIGEST.json of a model.",
            show_default=False,
        ),
    ] = None,
    dataset: o.LabelsOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in the output folder.")
    ] = False,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Clean the label maps of a folder.

    With --references, a postprocessor is fitted: it decides where cleaning raises the Dice, writes
    that to OUTPUT/postprocessing.json, and is applied. With --postprocessing, what was decided
    before is applied. Otherwise the settings decide (--set).
    """
    registry, report = o.registry_of(context), make_reporter(quiet=as_json)
    raw = o.workspace_of(workspace).raw
    declared = None if dataset is None else describe_labels(dataset, raw, registry)
    kind = kind_of(predictions, None if declared is None else LabelFiles.of(declared), registry)
    pairs: _Pairs = []
    if references is not None:
        pairs = match_folders(predictions, references, _labelled(kind).ending, report=report)
    if postprocessing is not None:
        if postprocessor is not None or settings:
            raise UsageError(
                "--postprocessing says which postprocessor is applied; leave it out, or leave out "
                "--postprocessor and --set."
            )
        cleaning = Cleaning(*opened(read_decision(postprocessing), registry))
    else:
        chosen = registry.resolve("postprocessor", postprocessor or "largest_component")
        chosen = chosen.with_settings(_settings(settings or []))
        known = _labelled(kind)
        image_format = format_of(known, registry)
        cleaning = fit_folder(pairs, known.labels, image_format, chosen, report)
    written = clean_folder(predictions, output, kind, cleaning, registry, overwrite, report)
    scores = _scores(pairs, output, _labelled(kind), registry, report) if pairs else None
    if as_json:
        shown = {"output": str(output), "cases": len(written), "state": dict(cleaning.state)}
        typer.echo(json.dumps({**shown, "dice": scores}, indent=1))
        return
    _print(cleaning, written, output, scores)


def _labelled(kind: LabelFiles | str) -> LabelFiles:
    """Return what labels mean.

    Raises:
        UsageError: Nothing says it.
    """
    if isinstance(kind, str):
        raise UsageError(
            "Nothing says what the labels mean: the folder has no predictions.json. Give the "
            "dataset, or its dataset.json (--dataset)."
        )
    return kind


def _settings(assignments: list[str]) -> dict[str, Any]:
    parsed = o.parse_assignments(assignments)
    if others := sorted(set(parsed) - {"postprocessor"}):
        raise UsageError(
            f"--set got a field of the {others[0]}; 'nnunet postprocess' takes "
            "postprocessor.FIELD=VALUE."
        )
    return parsed.get("postprocessor", {})


def _scores(
    pairs: _Pairs, output: Path, kind: LabelFiles, registry: Registry, report: Reporter
) -> dict[str, dict[str, float | None]]:
    """Return {label: mean Dice before and after}."""
    image_format, labels = format_of(kind, registry), kind.labels
    before = _dice(pairs, labels, image_format, report)
    cleaned = [(output / prediction.name, reference) for prediction, reference in pairs]
    after = _dice(cleaned, labels, image_format, report)
    return {name: {"before": finite(before[name]), "after": finite(after[name])} for name in before}


def _dice(
    pairs: _Pairs, labels: Labels, image_format: ImageFormat, report: Reporter
) -> dict[str, float]:
    summary = evaluate_files(pairs, labels, image_format, report=report)
    return {**dice_by_name(summary, labels), "mean": mean_foreground_dice(summary)}


def _print(
    cleaning: Cleaning,
    written: Sequence[Path],
    output: Path,
    scores: Mapping[str, Mapping[str, float | None]] | None,
) -> None:
    console = out()
    if scores is not None:
        table = Table(title=f"Dice of {counted(len(written), 'case')}", title_justify="left")
        for column in ("label", "before", "after"):
            table.add_column(column)
        for name, row in scores.items():
            table.add_row(name, *("-" if v is None else f"{v:.4f}" for v in row.values()))
        console.print(table)
    console.print(f"postprocessing  {decision(cleaning.state)}", soft_wrap=True)
    if cleaning.record is not None:
        console.print(f"written down    {output / FILE}", soft_wrap=True)
    console.print(f"label maps      {output} ({counted(len(written), 'case')})", soft_wrap=True)
