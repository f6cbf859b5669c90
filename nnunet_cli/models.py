"""`nnunet models`: the trained models of the workspace."""

from __future__ import annotations

import json

import typer

from nnunet_cli import options as o
from nnunet_core.store.models import FILE, Model


def list_models(workspace: o.WorkspaceOption = None, as_json: o.JsonOption = False) -> None:
    """List the trained models of the workspace: dataset, variant, configuration, folds."""
    results = o.workspace_of(workspace).results
    rows = []
    for path in sorted(results.glob(f"*/*/*/{FILE}")):
        model = Model.open(path.parent)
        folds = [str(fold) for fold in model.trained()]
        rows.append(
            {
                "model": str(path.parent.relative_to(results)),
                "folds": folds,
                "variant": model.document.variant,
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['model']}  folds {', '.join(row['folds']) or 'none'}")
    if not rows:
        typer.echo(f"no models in {results}")
