"""`nnunet find-best`: compare what is trained, and write down what predicts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.prediction.find_best import Choice, Selection
from nnunet_core.prediction.find_best import find_best as find_best_of
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.select import Candidate
from nnunet_core.store.origins import shell_line
from nnunet_core.store.postprocessing import postprocessing_file


def find_best(
    context: typer.Context,
    dataset: o.DatasetArgument,
    configurations: Annotated[
        str | None,
        typer.Option(
            "--configurations",
            "-c",
            help="Configurations to compare, with commas between them; default: every one that is "
            "trained.",
        ),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            help="Variants to compare, with commas between them, named as in 'nnunet models list'; "
            "default: every one that is trained."
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            help="Folds to compare on, with commas between them; default: every numbered one that "
            "any of them has."
        ),
    ] = None,
    ensembles: Annotated[bool, typer.Option(help="Compare all pairs as ensembles, too.")] = True,
    postprocessing: Annotated[
        bool, typer.Option(help="Decide about postprocessing on the validation cases.")
    ] = True,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail where a configuration lacks a fold, instead of leaving it out.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write; default: inference.json in the results of the dataset."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run postprocessors that no installed plugin registers; see 'predict'."
        ),
    ] = False,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Compare the trained configurations and variants of a dataset, and their ensembles; write the
    best to inference.json.

    The score is the mean Dice of raw validation predictions, over the foreground labels. An
    ensemble of two must be better than everything else; of equal ones, the first predicts.
    """
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    report = make_reporter(quiet=as_json)
    choice = Choice(
        variants=_names(variants),
        configurations=_names(configurations),
        folds=o.folds_of(folds) if folds else (),
        ensembles=ensembles,
        postprocess=postprocessing,
        strict=strict,
        trusted=trust,
    )
    found = open_dataset(dataset, space.raw, registry, space.preprocessed)
    selection = find_best_of(found, space.results, registry, choice, report, output)
    if as_json:
        typer.echo(json.dumps(selection_as_json(selection), indent=1))
    else:
        print_table(selection, f"{found.name}: Dice on validation cases")
        print_inference(selection)


def print_table(selection: Selection, title: str, *further: list[str]) -> None:
    """Print a table of the candidates, and further rows."""
    table = Table(title=title, title_justify="left")
    table.add_column("configuration", overflow="fold")
    for name in (*selection.best.dice, "mean", "cases"):
        table.add_column(name, justify="right")
    variants = {m.model.document.variant for c in selection.candidates for m in c.members}
    for candidate in selection.candidates:
        name = candidate.name if len(variants) == 1 else candidate.title
        best = len(selection.candidates) > 1 and candidate is selection.best
        values = [f"{value:.4f}" for value in (*candidate.dice.values(), candidate.mean_dice)]
        name = f"{name}  (best)" if best else name
        table.add_row(name, *values, str(candidate.cases), style="bold" if best else None)
    for row in further:
        table.add_row(*row)
    out().print(table)


def print_inference(selection: Selection) -> None:
    """Print how the best predicts."""
    best, console = selection.best, out()
    decided = best.postprocessing
    if decided is not None:
        name = decided.component.reference.rpartition("/")[2]
        console.print(f"postprocessing  {name}: {decision(decided.state)}", soft_wrap=True)
    console.print(f"inference       {selection.inference}", soft_wrap=True)
    console.print("predict with it:", soft_wrap=True)
    line = shell_line(["nnunet", "predict", str(selection.inference), "IMAGES", "OUTPUT"])
    console.print(f"  {line}", soft_wrap=True, highlight=False)
    console.print("or step by step:", soft_wrap=True)
    for line in commands(best):
        console.print(f"  {line}", soft_wrap=True, highlight=False)


def commands(best: Candidate) -> list[str]:
    """Return the commands that predict with a candidate."""
    decided = best.postprocessing
    if len(best.members) == 1:
        (single,) = best.members
        words = ["nnunet", "predict", str(single.model.folder), "IMAGES", "OUTPUT"]
        plain = [] if decided is not None else ["--no-postprocessing"]
        return [shell_line([*words, "--folds", ",".join(single.folds), *plain])]
    lines, folders = [], []
    for number, member in enumerate(best.members, start=1):
        folders.append(f"OUTPUT_{number}")
        words = ["nnunet", "predict", str(member.model.folder), "IMAGES", folders[-1], "--folds"]
        kept = ["--save-probabilities", "--no-postprocessing"]
        lines.append(shell_line([*words, ",".join(member.folds), *kept]))
    words = ["nnunet", "ensemble", *folders, "OUTPUT"]
    if decided is not None:
        path = postprocessing_file(best.folder, decided.component, decided.folds)
        words += ["--postprocessing", str(path)]
    return [*lines, shell_line(words)]


def selection_as_json(selection: Selection) -> dict[str, Any]:
    """Return what was compared, for scripts."""
    best = selection.best
    return {
        "best": best.title,
        "inference": None if selection.inference is None else str(selection.inference),
        "commands": commands(best),
        "postprocessing": None if best.postprocessing is None else best.postprocessing.state,
        "candidates": [
            {
                "models": [member.title for member in candidate.members],
                "folds": list(candidate.members[0].folds),
                "folder": str(candidate.folder),
                "dice": {name: finite(value) for name, value in candidate.dice.items()},
                "mean_dice": finite(candidate.mean_dice),
                "cases": candidate.cases,
            }
            for candidate in selection.candidates
        ],
        "left_out": dict(selection.left_out),
    }


def finite(value: float) -> float | None:
    """Return a number as JSON has it."""
    return None if math.isnan(value) else value


def decision(state: Mapping[str, Any]) -> str:
    """Return what a postprocessor decided, for people."""
    for key in ("for_which_classes", "minimum_sizes", "labels"):
        if key in state:
            return f"{key} {json.dumps(state[key])}" if state[key] else "leaves everything as it is"
    return json.dumps(dict(state))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
