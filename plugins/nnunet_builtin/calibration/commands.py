"""`nnunet models calibrate`: a temperature, fitted on the cross-validation."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunet_builtin.calibration.temperature import calibrate_model
from nnunet_cli import options as o
from nnunet_cli.commands.models import find_model
from nnunet_cli.reporter import make_reporter, out


def calibrate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="Its folder, or DATASET/VARIANT/CONFIGURATION in the results.", show_default=False
        ),
    ],
    workspace: o.WorkspaceOption = None,
) -> None:
    """Fit a temperature of the probabilities on the validation cases of all trained folds, which
    'nnunet validate --save-probabilities' writes; 'nnunet predict --calibrated' uses it.
    """
    found = find_model(model, workspace)
    record = calibrate_model(found, o.registry_of(context), make_reporter())
    out().print(
        f"temperature {record.temperature:.3f}; calibration error {record.error_before:.4f} -> "
        f"{record.error_after:.4f}, log-likelihood {-record.loss_before:.4f} -> "
        f"{-record.loss_after:.4f} ({record.cases} cases, {record.voxels} voxels)",
        soft_wrap=True,
    )
