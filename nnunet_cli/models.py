"""`nnunet models`: the trained models of the workspace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from nnunet_cli import options as o
from nnunet_core.errors import NnunetError, StorageError
from nnunet_core.registry.records import FoldRecord
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.models import FILE, Model
from nnunet_core.store.summaries import SUMMARY, Summary


def list_models(workspace: o.WorkspaceOption = None, as_json: o.JsonOption = False) -> None:
    """List the trained models of the workspace: dataset, variant, configuration, folds, and what is
    broken.
    """
    results = o.workspace_of(workspace).results
    rows = [_row(path.parent, results) for path in sorted(results.glob(f"*/*/*/{FILE}"))]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['model']}  folds {', '.join(row['folds']) or 'none'}")
        for part, problem in row["broken"].items():
            typer.echo(f"  broken: {part}: {problem}")
    if not rows:
        typer.echo(f"no models in {results}")


def _row(folder: Path, results: Path) -> dict[str, Any]:
    """Return what is known of a model; a damaged file is a fact about it, not an error."""
    row: dict[str, Any] = {"model": str(folder.relative_to(results)), "folds": [], "broken": {}}
    try:
        model = Model.open(folder)
    except NnunetError as error:
        return {**row, "variant": folder.parent.name, "broken": {FILE: str(error)}}
    for name, state in model.found_folds().items():
        if isinstance(state, str):
            row["broken"][f"fold {name}"] = state
        elif state.status != "running":
            row["folds"].append(name)
            if problem := _unvalidated(model.fold_folder(name), state):
                row["broken"][f"fold {name}"] = problem
    return {**row, "variant": model.document.variant}


def _unvalidated(fold: Path, record: FoldRecord) -> str:
    """Say what is missing of the validation of a fold that can predict."""
    if record.status == "trained":
        return "it is not validated: 'nnunet train' with the same options does that"
    try:
        Summary.read(fold / VALIDATION / SUMMARY)
    except StorageError as error:
        return f"{error} 'nnunet train' with the same options makes it anew"
    return ""
