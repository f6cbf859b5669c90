"""`nnunet predict`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunet_cli import options as o
from nnunet_cli.models import best_model, find_model
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import UsageError, counted
from nnunet_core.stages.predict import PredictionOptions, predict_folder


def predict(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] IMAGES OUTPUT",
            help="MODEL: its folder, or DATASET/VARIANT/CONFIGURATION in the results; left out "
            "with --dataset. IMAGES: a folder of images CASE_0000.ext, or CASE.ext for one "
            "channel; or one file. OUTPUT: the folder that the "
            "predictions are written to.",
            show_default=False,
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Predict with the only trained model of a dataset, or with the one whose "
            "validation cases have the highest Dice.",
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            help="Folds with commas between them; default: every numbered one that is trained."
        ),
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(help="Predictor; default: the one that the model was validated with."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="predictor.FIELD=VALUE",
            help="A setting of the predictor, e.g. predictor.step_size=0.7; repeatable.",
        ),
    ] = None,
    mirroring: Annotated[
        bool | None,
        typer.Option(
            help="Average over mirrored inputs; short for --set predictor.mirroring=...",
            show_default=False,
        ),
    ] = None,
    step_size: Annotated[
        float | None,
        typer.Option(
            help="Sliding-window step, a fraction of the patch from 0.01 to 1; short for --set "
            "predictor.step_size=..."
        ),
    ] = None,
    postprocessing: Annotated[
        bool, typer.Option(help="Apply the postprocessing found on the validation cases.")
    ] = True,
    save_probabilities: Annotated[
        bool, typer.Option(help="Also write CASE.b2nd with class probabilities.")
    ] = False,
    restore_values: Annotated[
        bool,
        typer.Option(
            "--restore-values",
            help="Write label values as they were before 'dataset convert --renumber'.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace predictions of another model in the output folder.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run code that the model names and no installed plugin registers; it is shown "
            "first.",
        ),
    ] = False,
    workspace: o.WorkspaceOption = None,
    device: o.DeviceOption = "auto",
    precision: o.PrecisionOption = "auto",
    threads: o.ThreadsOption = 0,
) -> None:
    """Predict every case of a folder with a trained model; cases that are predicted already are
    left alone.
    """
    options = PredictionOptions(
        folds=o.folds_of(folds) if folds else (),
        predictor=predictor,
        settings=_predictor_settings(settings or [], mirroring=mirroring, step_size=step_size),
        postprocess=postprocessing,
        save_probabilities=save_probabilities,
        restore_values=restore_values,
        overwrite=overwrite,
        runtime=Runtime(device, precision, 0, threads),
    )
    model, images, output = _places(paths, dataset, workspace)
    found = replace(find_model(model, workspace), trusted=trust)
    written = predict_folder(
        found, images, output, o.registry_of(context), options, make_reporter()
    )
    out().print(f"{counted(len(written), 'case')} in {output}", soft_wrap=True)


def _places(
    paths: list[str], dataset: str | None, workspace: Path | None
) -> tuple[str, Path, Path]:
    """Return model, images and output of a command line."""
    words = [*paths] if dataset is None else [_best(dataset, workspace), *paths]
    if len(words) != 3:
        raise UsageError(
            f"nnunet predict takes MODEL IMAGES OUTPUT, or --dataset DATASET IMAGES OUTPUT; got "
            f"{'' if dataset is None else f'--dataset {dataset} '}{' '.join(paths)}."
        )
    return words[0], Path(words[1]), Path(words[2])


def _best(dataset: str, workspace: Path | None) -> str:
    results = o.workspace_of(workspace).results
    row = best_model(dataset, results)
    dice = "" if row["dice"] is None else f", Dice {row['dice']:.4f} on its validation cases"
    make_reporter().message(f"model: {row['model']}{dice}")
    return str(results / row["model"])


def _predictor_settings(assignments: list[str], **short: Any) -> dict[str, Any]:
    """Return {field: value} of `--set predictor.FIELD=VALUE` and of the short forms that were
    given.
    """
    parsed = o.parse_assignments(assignments)
    others = sorted(set(parsed) - {"predictor"})
    if others:
        raise UsageError(
            f"--set got a field of the {others[0]}, which decides how a model is trained; 'nnunet "
            "predict' takes predictor.FIELD=VALUE."
        )
    given = {name: value for name, value in short.items() if value is not None}
    return {**parsed.get("predictor", {}), **given}
