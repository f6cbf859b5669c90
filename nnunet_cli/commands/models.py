"""`nnunet models`: the trained models of the workspace."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunet_cli import options as o
from nnunet_core.errors import NnunetError, StorageError, UsageError, nearest, printable
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.stages.dataset import is_named
from nnunet_core.stages.evaluate import mean_foreground_dice, summarise
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.inference import FILE as INFERENCE
from nnunet_core.store.models import FILE, Model
from nnunet_core.store.origins import command
from nnunet_core.store.summaries import SUMMARY, Summary

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Model folder, or DATASET/VARIANT/CONFIGURATION in the results.", show_default=False
    ),
]

#: Of components in a model.json of strangers, who may write what they like.
_CLAIM = f"only {FILE} says so: no such plugin is installed"


def _say(text: str) -> None:
    typer.echo(printable(text))  # names in a model.json may be of strangers


def list_models(workspace: o.WorkspaceOption = None, as_json: o.JsonOption = False) -> None:
    """List the models of the workspace: status, trained folds, mean Dice of their validation cases,
    date, and what is broken.
    """
    results = o.workspace_of(workspace).results
    rows = model_rows(results)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    width = max((len(row["model"]) for row in rows), default=0)
    for row in rows:
        _say(f"{row['model']:{width}}  {_described(row)}")
        for part, problem in row["broken"].items():
            _say(f"  broken: {part}: {problem}")
    _say("what a name stands for: nnunet models show MODEL" if rows else f"no models in {results}")


def show(
    context: typer.Context,
    model: ModelArgument,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Show one model: what the digest in its name stands for, its folds, components and the command
    that trains it.
    """
    found = find_model(model, workspace)
    row, document = _row(found.folder, found.folder.parents[2]), found.document
    row["origin"] = document.origin
    registry = o.registry_of(context)
    row["command"] = None if document.origin else _command(found, registry)
    row["components"] = {
        kind: " ".join(filter(None, (record.reference, record.distribution, record.version)))
        for kind, record in document.components.items()
    }
    row["unregistered"] = [
        kind for kind, record in document.components.items() if _is_claim(kind, record, registry)
    ]
    if as_json:
        typer.echo(json.dumps(row, indent=1))
        return
    labels = ", ".join(f"{value} {name}" for value, name in document.labels.names.items())
    _say(f"{row['model']}  {_described(row)}")
    _say(f"folder    {found.folder}")
    _say(f"made by   {document.origin or row['command']}")
    _say(f"channels  {', '.join(document.channels)}; files {document.file_ending}")
    _say(f"labels    {labels}")
    for kind, text in row["components"].items():
        claim = f"  ({_CLAIM})" if kind in row["unregistered"] else ""
        _say(f"  {kind:13} {text}{claim}")
    for part, problem in row["broken"].items():
        _say(f"broken: {part}: {problem}")


def _is_claim(kind: str, record: ComponentRecord, registry: Registry) -> bool:
    """Return whether no installed plugin of that distribution registers a component."""
    try:
        found = registry.registered(kind, record.reference, FILE, "")
    except NnunetError:
        return True
    return found.distribution != record.distribution


def _command(model: Model, registry: Registry) -> str:
    document = model.document
    words = [*model.options(registry), "--configuration", document.configuration_name]
    return command("run", document.dataset, words)


def model_rows(results: Path) -> list[dict[str, Any]]:
    """Return what is known of every model below a results folder."""
    return [_row(path.parent, results) for path in sorted(results.glob(f"*/*/*/{FILE}"))]


def find_model(reference: str, workspace: Path | None) -> Model:
    """Return a model by its folder, or by DATASET/VARIANT/CONFIGURATION in the results.

    Raises:
        UsageError: There is no such model.
    """
    if Path(reference).is_dir():
        return Model.open(Path(reference))
    results = o.workspace_of(workspace).results
    parts = reference.strip("/").split("/")
    if len(parts) != 3 or not results.joinpath(*parts, FILE).is_file():
        known = [row["model"] for row in model_rows(results)]
        raise UsageError(
            f"There is no model '{reference}': no such folder, and no such "
            f"DATASET/VARIANT/CONFIGURATION in {results}.{nearest(reference, known)} Models: "
            f"{', '.join(known) or 'none'}."
        )
    return Model.open(results.joinpath(*parts))


def best_model(dataset: str, results: Path) -> dict[str, Any]:
    """Return the row of the model of a dataset that predicts: the only one with a trained fold, or
    the one with the highest Dice.

    Args:
        dataset: Id or name.
        results: Of the workspace.

    Raises:
        UsageError: No fold of any is trained, or there are several and none has a Dice.
    """
    rows = model_rows(results)
    usable = [row for row in rows if row["folds"] and is_named(row["model"].split("/")[0], dataset)]
    if not usable:
        names = sorted({row["model"].split("/")[0] for row in rows if row["folds"]})
        raise UsageError(
            f"No trained model of a dataset '{dataset}' is in {results}.{nearest(dataset, names)} "
            f"Datasets with one: {', '.join(names) or 'none'}."
        )
    if len(usable) > 1 and all(row["dice"] is None for row in usable):
        names = [row["model"] for row in usable]
        for folder in {results / name.split("/")[0] for name in names}:
            names += map(str, sorted(folder.rglob(INFERENCE)))  # of imported ensembles
        raise UsageError(
            f"Dataset '{dataset}' has {len(usable)} trained models, and none has validation cases "
            f"to choose by. Name one of them instead: {', '.join(names)}."
        )
    return max(usable, key=lambda row: -1.0 if row["dice"] is None else row["dice"])


def _described(row: dict[str, Any]) -> str:
    dice = "" if row["dice"] is None else f"  Dice {row['dice']:.4f}"
    folds = f"folds {', '.join(row['folds']) or 'none'}"
    return f"{row['status']:13}  {folds}{dice}  {row['date']}".rstrip()


def _row(folder: Path, results: Path) -> dict[str, Any]:
    """Return what is known of a model; a damaged file is a fact about it, not an error."""
    row: dict[str, Any] = {
        "model": str(folder.relative_to(results)),
        "variant": folder.parent.name,
        "status": "broken",
        "folds": [],
        "dice": None,
        "date": "",
        "broken": {},
    }
    try:
        model = Model.open(folder)
    except NnunetError as error:
        return {**row, "broken": {FILE: str(error)}}
    cases: list[Any] = []
    running = False
    for name, state in model.found_folds().items():
        if isinstance(state, str):
            row["broken"][f"fold {name}"] = state
        elif state.status == "running":
            running = True
        else:
            row["folds"].append(name)
            row["date"] = max(row["date"], state.finished[:10])
            found = _validation(model.fold_folder(name), state)
            if isinstance(found, str):
                row["broken"][f"fold {name}"] = found
            elif name.isdigit():
                cases.extend(found)
    row["dice"] = _mean_dice(cases)
    row["status"] = _status(row, running, model.document.origin is not None)
    return {**row, "variant": model.document.variant}


def _status(row: dict[str, Any], running: bool, imported: bool) -> str:
    if row["broken"]:
        return "broken"
    if imported:
        return "imported"
    if running:
        return "in training"
    return "finished" if row["folds"] else "not trained"


def _mean_dice(cases: list[Any]) -> float | None:
    dice = mean_foreground_dice(summarise(cases)) if cases else math.nan
    return None if math.isnan(dice) else dice


def _validation(fold: Path, record: FoldRecord) -> list[Any] | str:
    """Return the scores of the validation cases of a fold that can predict, or what is missing."""
    if record.status == "imported":
        return []
    if record.status == "trained":
        return "it is not validated: 'nnunet train' with the same options does that"
    try:
        return list(Summary.read(fold / VALIDATION / SUMMARY).content()["results"]["all"])
    except StorageError as error:
        return f"{error} 'nnunet train' with the same options makes it anew"
