"""`nnunet models`: the trained models of the workspace."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from nnunet_cli import options as o
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.errors import NnunetError, StorageError, UsageError, nearest, printable
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.stages.dataset import is_named
from nnunet_core.stages.evaluate import mean_foreground_dice, summarise
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.inference import FILE as INFERENCE
from nnunet_core.store.models import FILE, MANIFEST, Model, ModelDocument
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
    that trains it; of an installed one also licence, citation and scores.
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
    row.update(_geometry(document))
    row.update(_card(found, row["broken"]))
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
    for title, text in _sheet(row, document.labels.names).items():
        _say(f"{title:9} {text}")
    for kind, text in row["components"].items():
        claim = f"  ({_CLAIM})" if kind in row["unregistered"] else ""
        _say(f"  {kind:13} {text}{claim}")
    for part, problem in row["broken"].items():
        _say(f"broken: {part}: {problem}")


def _geometry(document: ModelDocument) -> dict[str, Sequence[float]]:
    """Return spacing (mm) and patch (voxels) of a model, in the order (z, y, x); of 2D images
    (y, x).
    """
    configuration = document.configuration
    # position of each axis of the image among the permuted ones
    order = [configuration.transpose_forward.index(axis) for axis in range(3)]
    patch = (1,) * (3 - configuration.dimensions) + configuration.patch_size
    spacing = [configuration.spacing[axis] for axis in order]
    first = int(spacing[0] == SLICE_SPACING_2D)
    return {"spacing": spacing[first:], "patch_size": [patch[axis] for axis in order][first:]}


class _Scores(BaseModel):
    cases: int
    mean: dict[str, dict[str, float | None]]


class _ModelCard(BaseModel):
    configuration: str
    scores: _Scores | None = None


class _Card(BaseModel):
    """What is shown of the manifest.json of an installed model."""

    licence: str = ""
    citation: str = ""
    models: tuple[_ModelCard, ...] = ()


def _card(model: Model, broken: dict[str, str]) -> dict[str, Any]:
    """Return licence, citation and scores that an installed model came with; add to `broken` what
    cannot be read.
    """
    card, path = _Card(), model.folder / MANIFEST
    if path.is_file():
        try:
            card = _Card.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            broken[MANIFEST] = " ".join(str(error).split())
    mine = [each for each in card.models if each.configuration == model.folder.name]
    scores = mine[0].scores if mine else None
    return {
        "licence": card.licence or None,
        "citation": card.citation or None,
        "scores": None if scores is None else scores.model_dump(),
    }


def _sheet(row: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, str]:
    """Return {title: text} of what there is of size, scores, licence and citation."""
    axes = "z, y, x" if len(row["spacing"]) == 3 else "y, x"
    scores, dice = row["scores"], ""
    if scores is not None:
        of = {str(value): name for value, name in names.items()}
        found = {key: means.get("Dice") for key, means in scores["mean"].items() if key != "0"}
        shown = [f"{of.get(key, key)} {v:.4f}" for key, v in found.items() if v is not None]
        dice = f"{', '.join(shown)} (mean of {scores['cases']} validation cases)" if shown else ""
    lines = {
        "spacing": f"{' x '.join(f'{mm:g}' for mm in row['spacing'])} mm ({axes})",
        "patch": f"{' x '.join(map(str, row['patch_size']))} voxels ({axes})",
        "Dice": dice,
        "licence": " ".join((row["licence"] or "").split()),
        "cite": " ".join((row["citation"] or "").split()),
    }
    return {title: text for title, text in lines.items() if text}


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
