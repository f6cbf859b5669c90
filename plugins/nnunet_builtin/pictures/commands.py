"""`nnunet dataset sheet`: every training case of a dataset in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_builtin.pictures.drawing import contact_sheet
from nnunet_cli import options as o
from nnunet_core.stages.dataset import open_dataset


def sheet(
    context: typer.Context,
    dataset: o.DatasetArgument,
    output: Annotated[Path, typer.Argument(help="PNG to write.", show_default=False)],
    workspace: o.WorkspaceOption = None,
) -> None:
    """Draw every training case with its labels, through the slice that shows most of them, to one
    PNG.
    """
    data = open_dataset(dataset, o.workspace_of(workspace).raw, o.registry_of(context))
    contact_sheet((data.load(case) for case in data.training), output, data.labels)
    typer.echo(f"contact sheet: {output}", err=True)
