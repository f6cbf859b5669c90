"""`nnunet predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import UsageError
from nnunet_core.stages.predict import PredictionOptions, predict_folder
from nnunet_core.store.models import Model, find_model


def predict(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder, or DATASET/VARIANT/CONFIGURATION in the results.",
            show_default=False,
        ),
    ],
    images: Annotated[
        Path, typer.Argument(help="Folder of images CASE_0000.ext.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Argument(help="Folder that the predictions are written to.", show_default=False)
    ],
    folds: Annotated[
        str | None,
        typer.Option(
            help="Folds with commas between them; default: every numbered one that is trained."
        ),
    ] = None,
    mirroring: Annotated[bool, typer.Option(help="Average over mirrored inputs.")] = True,
    step_size: Annotated[
        float, typer.Option(help="Sliding-window step, a fraction of the patch in (0, 1].")
    ] = 0.5,
    postprocessing: Annotated[
        bool, typer.Option(help="Apply the postprocessing found on the validation cases.")
    ] = True,
    save_probabilities: Annotated[
        bool, typer.Option(help="Also write CASE.npz with class probabilities.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace predictions of another model in the output folder.")
    ] = False,
    workspace: o.WorkspaceOption = None,
    device: o.DeviceOption = "auto",
    precision: o.PrecisionOption = "auto",
    threads: o.ThreadsOption = 0,
) -> None:
    """Predict every case of a folder with a trained model; cases that are predicted already are left alone."""
    options = PredictionOptions(
        folds=o.folds_of(folds) if folds else (),
        mirroring=mirroring,
        step_size=step_size,
        postprocess=postprocessing,
        save_probabilities=save_probabilities,
        overwrite=overwrite,
        runtime=Runtime(device, precision, 0, threads),
    )
    found = _find(model, workspace)
    paths = predict_folder(found, images, output, o.registry_of(context), options, make_reporter())
    out().print(f"{len(paths)} cases in {output}", soft_wrap=True)


def _find(reference: str, workspace: Path | None) -> Model:
    if Path(reference).is_dir():
        return Model.open(Path(reference))
    parts = reference.strip("/").split("/")
    if len(parts) != 3:
        raise UsageError(
            f"'{reference}' is no folder, and not of the form DATASET/VARIANT/CONFIGURATION."
        )
    return find_model(o.workspace_of(workspace).results, *parts)
