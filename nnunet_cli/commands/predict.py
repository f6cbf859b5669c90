"""`nnunet predict`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunet_cli import options as o
from nnunet_cli.commands.models import best_model, find_model, model_rows
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import UsageError, counted
from nnunet_core.prediction.infer import predict_inference, predict_inference_file
from nnunet_core.prediction.predict import (
    PredictionOptions,
    is_file_output,
    predict_file,
    predict_folder,
)
from nnunet_core.stages.dataset import is_named
from nnunet_core.store.inference import FILE as INFERENCE
from nnunet_core.store.inference import read_inference, selected
from nnunet_core.store.predictions import Part


def predict(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] IMAGES... OUTPUT",
            help="MODEL: its folder, or DATASET/VARIANT/CONFIGURATION in the results, or the "
            "inference.json of 'nnunet find-best' or the dataset's folder that holds it; left out "
            "with --dataset. IMAGES: a folder of images CASE_0000.ext, or CASE.ext for one "
            "channel; or files, with several channels those of one case in their order; or DICOM "
            "series, a folder each. OUTPUT: the folder that the predictions are written to; or, "
            "for one case, a file: out.nii.gz, or out.dcm for DICOM SEG.",
            show_default=False,
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Predict with what 'nnunet find-best' selected for a dataset; without that with "
            "its only trained model, or the one with the highest Dice on validation cases.",
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
    entropy: Annotated[
        bool,
        typer.Option(
            "--entropy",
            help="Also write entropy/CASE.nii.gz: how unsure each voxel is, from 0 to 1.",
        ),
    ] = False,
    disagreement: Annotated[
        bool,
        typer.Option(
            "--disagreement",
            help="Also write disagreement/CASE.nii.gz: the share of folds that label a voxel "
            "otherwise than all together; takes twice the time.",
        ),
    ] = False,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated",
            help="Apply the temperature of 'nnunet models calibrate' to probabilities and "
            "entropy; label maps stay the same.",
        ),
    ] = False,
    restore_values: Annotated[
        bool,
        typer.Option(
            "--restore-values",
            help="Write label values as they were before 'dataset convert --renumber'.",
        ),
    ] = False,
    ending: Annotated[
        str,
        typer.Option(
            help="Ending of label files: .nrrd, or .dcm for DICOM SEG of DICOM series; default: "
            "that of the labels of the training.",
            show_default=False,
        ),
    ] = "",
    part: Annotated[
        str,
        typer.Option(
            metavar="K/N",
            help="Predict a part of the cases: 1/4 to 4/4 may run at once, into one folder.",
            show_default=False,
        ),
    ] = "1/1",
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
    memory_gb: o.PredictionMemoryOption = None,
    threads: o.ThreadsOption = 0,
) -> None:
    """Predict images with a trained model; cases that are predicted already are left alone."""
    options = PredictionOptions(
        folds=o.folds_of(folds) if folds else (),
        predictor=predictor,
        settings=_predictor_settings(settings or [], mirroring=mirroring, step_size=step_size),
        postprocess=postprocessing,
        save_probabilities=save_probabilities,
        restore_values=restore_values,
        overwrite=overwrite,
        ending=ending,
        part=Part.parse(part),
        entropy=entropy,
        disagreement=disagreement,
        calibrated=calibrated,
        runtime=Runtime(device, precision, 0, threads, memory_gb),
    )
    model, images, output = _places(paths, dataset, workspace)
    registry = o.registry_of(context)
    to_file = not ending and is_file_output(output, registry)
    where = (images, output, registry, options, make_reporter())
    if inference := selected(Path(model)):
        carried_out = predict_inference_file if to_file else predict_inference
        written = carried_out(inference, *where, trust)
    else:
        found = replace(find_model(model, workspace), trusted=trust)
        written = (predict_file if to_file else predict_folder)(found, *where)
    cases = "" if isinstance(written, Path) else f"{counted(len(written), 'case')} in "
    out().print(f"{cases}{output}", soft_wrap=True)


def _places(
    paths: list[str], dataset: str | None, workspace: Path | None
) -> tuple[str, list[Path], Path]:
    """Return model, images and output of a command line."""
    words = [*paths] if dataset is None else [_best(dataset, workspace), *paths]
    if len(words) < 3:
        raise UsageError(
            "nnunet predict takes MODEL IMAGES OUTPUT, or --dataset DATASET IMAGES OUTPUT; got "
            f"{'' if dataset is None else f'--dataset {dataset} '}{' '.join(paths)}."
        )
    return words[0], [Path(word) for word in words[1:-1]], Path(words[-1])


def _best(dataset: str, workspace: Path | None) -> str:
    """Return what predicts for a dataset, and say which and why: what 'nnunet find-best' selected;
    else the highest Dice among models and what runs of several configurations selected.
    """
    results, report = o.workspace_of(workspace).results, make_reporter()
    selected = [p for p in results.glob(f"*/{INFERENCE}") if is_named(p.parent.name, dataset)]
    if len(selected) > 1:
        raise UsageError(
            f"'{dataset}' names several datasets with a selection of models. Name one of them "
            f"instead: {', '.join(map(str, selected))}."
        )
    row: dict[str, Any] = {}
    if not selected:
        row = best_model(dataset, results)
        runs = [p for p in results.glob(f"*/*/{INFERENCE}") if is_named(p.parts[-3], dataset)]
        best = max(runs, key=lambda path: _dice(path) or -1.0, default=None)
        lowest = row["dice"] or -1.0
        selected = [best] if best is not None and (_dice(best) or -1.0) >= lowest else []
    if selected:
        report.message(f"model: {_selection(selected[0], results)}")
        return str(selected[0])
    dice = "" if row["dice"] is None else f", Dice {row['dice']:.4f} on its validation cases"
    report.message(
        f"model: {row['model']}{dice} (no {INFERENCE}: 'nnunet find-best' also compares ensembles)"
    )
    return str(results / row["model"])


def _dice(path: Path) -> float | None:
    scores = read_inference(path).scores
    return scores[0].mean_dice if scores else None


def _selection(path: Path, results: Path) -> str:
    """Return what an inference.json of the results selects, and what it has not compared."""
    document, dice = read_inference(path), _dice(path)
    places = [Path(os.path.normpath(path.parent / member.model)) for member in document.members]
    members = ["/".join(place.parts[-2:]) for place in places]
    score = "" if dice is None else f", Dice {dice:.4f} on the validation cases"
    compared = {*members, *(title for score in document.scores for title in score.models)}
    rows = [row["model"] for row in model_rows(results) if row["folds"]]
    trained = {row.partition("/")[2] for row in rows if row.split("/")[0] == document.dataset}
    others = sorted(trained - compared)
    later = f"; not compared: {', '.join(others)}: run 'nnunet find-best' again" if others else ""
    return f"{' + '.join(members)}{score} (selected in {path}{later})"


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
