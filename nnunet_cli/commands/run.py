"""`nnunet run`: the whole method with one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunet_cli import options as o
from nnunet_cli.commands.find_best import commands, finite, print_inference, print_table
from nnunet_cli.groups import grouped
from nnunet_cli.makers import logged
from nnunet_cli.reporter import out
from nnunet_core import __version__
from nnunet_core.errors import counted
from nnunet_core.prediction.predict import PredictionOptions
from nnunet_core.registry.discovery import OWN, Registry
from nnunet_core.registry.remarks import slow_imports
from nnunet_core.run import Request, RunResult
from nnunet_core.run import run as run_method
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.experiment import VALIDATION


@grouped
def run(
    context: typer.Context,
    dataset: o.RunDatasetArgument,
    *,
    training: o.Training,
    folds: Annotated[
        str | None,
        typer.Option(
            help="Folds with commas between them (0,1), or 'all' to train on all cases. Default: "
            "every fold."
        ),
    ] = None,
    predict: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images to predict afterwards; also a folder of the dataset, e.g. "
            "imagesTs."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder that the predictions are written to.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace predictions of another model in the output folder.")
    ] = False,
    ensembles: Annotated[
        bool,
        typer.Option(
            help="Of several configurations, compare all pairs as ensembles, too; keeps the "
            "probabilities of validation cases."
        ),
    ] = True,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Run the whole method on a dataset: fingerprint, plan, preprocess, train, validate, evaluate,
    predict.

    What is done already and still current is not done again. Results lie under WORKSPACE/results.
    """
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    request = Request(
        dataset=dataset,
        folds=o.folds_of(folds) if folds is not None else (),
        predict=predict,
        output=output,
        options=PredictionOptions(runtime=training["runtime"], overwrite=overwrite),
        ensembles=ensembles,
        **training,
    )
    request, report = logged(request, registry, space, "run", quiet=as_json)
    _header(registry, report)
    result = run_method(request, registry, space, report)
    if as_json:
        typer.echo(json.dumps(_as_json(result), indent=1))
    else:
        _print(result)


def _header(registry: Registry, report: Reporter) -> None:
    """Say which plugins take part; our own are one, with those of them that are blocked."""
    own = [info for info in registry.plugins() if info.distribution == OWN]
    blocked = ", ".join(info.name for info in own if info.status == "blocked")
    told = [f"{OWN} {__version__}{blocked and f' without {blocked}'}"]
    told += [
        f"{info.name} ({info.distribution} {info.version})"
        for info in registry.plugins()
        if info.status == "active" and info not in own
    ]
    report.message(f"plugins: {', '.join(told)}")
    for info in registry.plugins():
        if info.status == "broken":
            report.warning(f"the plugin '{info.name}' is broken and takes no part: {info.error}")
    for line in slow_imports(registry):
        report.warning(line)


def _print(result: RunResult) -> None:
    """Print Dice per label and where everything lies."""
    console, selection = out(), result.selection
    models = [row for row in selection.candidates if len(row.members) == 1]
    further = []
    if result.prediction_dice:
        dice = (f"{value:.4f}" for value in result.prediction_dice.values())
        mean = f"{result.prediction_mean_dice:.4f}"
        further = [["predicted folder", *dice, mean, str(len(result.predictions))]]
    title = f"{result.dataset.name}: Dice on validation cases ({result.method.name})"
    print_table(selection, title, *further)
    for row in models:
        console.print(f"model        {row.folder}", soft_wrap=True)
        for fold in sorted(row.folder.glob("fold_*")):
            console.print(f"  {fold.name}     {fold / 'progress.png'}", soft_wrap=True)
            console.print(
                f"             {fold / VALIDATION} (label maps, summary.json, overlay pictures)",
                soft_wrap=True,
            )
    console.print(f"plans        {result.plans_path}", soft_wrap=True)
    if result.predictions:
        count = counted(len(result.predictions), "case")
        console.print(
            f"predictions  {result.predictions[0].parent} ({count})",
            soft_wrap=True,
        )
    if selection.inference is not None:
        print_inference(selection)


def _as_json(result: RunResult) -> dict[str, Any]:
    selection = result.selection
    found = {
        "dataset": result.dataset.name,
        "variant": result.method.name,
        "plans": str(result.plans_path),
        "best": result.best.name,
        "configurations": [
            {
                "name": row.name,
                "folder": str(row.folder),
                "dice": {name: finite(value) for name, value in row.dice.items()},
                "mean_dice": finite(row.mean_dice),
                "cases": row.cases,
            }
            for row in selection.candidates
        ],
        "predictions": [str(path) for path in result.predictions],
        "prediction_dice": {name: finite(value) for name, value in result.prediction_dice.items()},
    }
    if selection.inference is not None:
        found["inference"] = str(selection.inference)
        found["commands"] = commands(result.best)
    return found
