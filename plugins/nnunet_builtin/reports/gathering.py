"""Gather what a report of a run or of an archive says, from what lies on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nnunet_builtin.reports.content import Fold, ModelContent, Received, RunContent
from nnunet_builtin.reports.finding import Found, run_of
from nnunet_builtin.reports.method import parts_of, plans_of
from nnunet_builtin.reports.sheets import sheet_of_run
from nnunet_builtin.reports.trained import label_scores, names_of, read_folds
from nnunet_core.errors import NnunetError, StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.store.calibration import FILE as CALIBRATION
from nnunet_core.store.calibration import CalibrationRecord
from nnunet_core.store.inference import FILE as INFERENCE
from nnunet_core.store.inference import InferenceDocument, read_inference
from nnunet_core.store.models import FILE as MODEL
from nnunet_core.store.models import MANIFEST, Model
from nnunet_core.store.origins import command
from nnunet_core.store.postprocessing import PostprocessingRecord
from nnunet_core.store.workspace import Workspace


class _Card(BaseModel):
    """What a manifest.json says of a model, as far as a report shows it."""

    model_config = ConfigDict(extra="ignore")

    configuration: str
    scores: dict[str, object] | None = None


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    models: list[_Card] = Field(default_factory=list)
    licence: str = ""
    citation: str = ""


def gather(
    found: Found, workspace: Workspace, registry: Registry, folder: Path | None = None
) -> RunContent:
    """Return what a report of models says. What is damaged is said in it; nothing large is read.

    Args:
        found: The models.
        workspace: Where plans and fingerprint of their dataset may be.
        registry: Provides their components.
        folder: Of their dataset.

    Raises:
        StorageError: None of the models can be read.
    """
    models: list[ModelContent] = []
    problems: list[str] = []
    for place in found.models:
        try:
            models.append(_model(place, workspace, registry, problems))
        except NnunetError as error:
            problems.append(str(error))
    if not models:
        raise StorageError(" ".join(problems) or f"{found.folder} holds no model.")
    for model in models:
        problems += [
            f"{model.name}, fold {fold.name}: {fold.problem}"
            for fold in model.folds
            if fold.problem
        ]
    first = models[0]
    records = [fold.record for model in models for fold in model.folds if fold.record]
    cases = [case for model in models for case in model.cases]
    return RunContent(
        title=found.title,
        models=models,
        inference=_inference(found.folder / INFERENCE, problems),
        data=sheet_of_run(
            first.document,
            next(iter(records), None),
            cases,
            _preprocessed(first.folder, workspace, first.document.dataset),
            folder,
        ),
        problems=problems,
    )


def _model(
    folder: Path, workspace: Workspace, registry: Registry, problems: list[str]
) -> ModelContent:
    model = Model.open(folder)
    document, folds = model.document, read_folds(model)
    preprocessed = _preprocessed(folder, workspace, document.dataset)
    content = ModelContent(
        folder=folder,
        document=document,
        folds=folds,
        labels=(),
        planned=plans_of(model, preprocessed, registry),
        parts=parts_of(document, registry),
        command="" if model.is_received else _command(model, folds, registry),
        postprocessing=list(_postprocessing(folder, problems)),
        calibration=_calibration(folder / CALIBRATION, problems),
        received=_received(model, problems),
    )
    labels = label_scores(content.cases, [fold.name for fold in folds])
    return ModelContent(**{**vars(content), "labels": labels})


def _preprocessed(folder: Path, workspace: Workspace, dataset: str) -> list[Path]:
    """Return where plans of a dataset may be: beside the results that a model is in, or in the
    workspace.
    """
    beside = [
        parent.parent / "preprocessed" for parent in folder.parents if parent.name == "results"
    ]
    return list(dict.fromkeys(place / dataset for place in (*beside, workspace.preprocessed)))


def _command(model: Model, folds: list[Fold], registry: Registry) -> str:
    words = [*model.options(registry), "--configuration", model.document.configuration_name]
    seeds = {fold.record.seed for fold in folds if fold.record}
    words += ["--seed", str(next(iter(seeds)))] if len(seeds) == 1 else []
    words += ["--folds", ",".join(fold.name for fold in folds)] if folds else []
    return command("run", model.document.dataset, words)


def _postprocessing(folder: Path, problems: list[str]) -> Iterator[PostprocessingRecord]:
    for path in sorted((folder / "postprocessing").glob("*.json")):
        try:
            yield PostprocessingRecord.read(path)
        except StorageError as error:
            problems.append(str(error))


def _calibration(path: Path, problems: list[str]) -> CalibrationRecord | None:
    if not path.is_file():
        return None
    try:
        return CalibrationRecord.read(path)
    except StorageError as error:
        problems.append(str(error))
        return None


def _inference(path: Path, problems: list[str]) -> InferenceDocument | None:
    if not path.is_file():
        return None
    try:
        return read_inference(path)
    except NnunetError as error:
        problems.append(str(error))
        return None


def _received(model: Model, problems: list[str]) -> Received | None:
    """Return what an installed or imported model came with; None where it was trained here."""
    if not model.is_received:
        return None
    path = model.folder / MANIFEST
    if not path.is_file():
        return Received()
    try:
        manifest = _Manifest.model_validate(files.read_json(path))
    except (StorageError, ValidationError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return Received()
    name = model.document.configuration_name
    scores = next((card.scores for card in manifest.models if card.configuration == name), None)
    return Received(manifest.licence, manifest.citation, *_scores(scores, model))


def _scores(scores: dict[str, object] | None, model: Model) -> tuple[int, dict[str, float | None]]:
    """Return how many cases a manifest has scores of, and the mean Dice of each label."""
    match scores:
        case {"cases": int() as cases, "mean": dict() as mean}:
            named = names_of(model.document.labels)
            rows = {name: mean.get(target) for target, name in named.items()}
            found = {n: row.get("Dice") for n, row in rows.items() if isinstance(row, dict)}
            numbers = {n: v for n, v in found.items() if v is None or isinstance(v, (int, float))}
            return cases, numbers
    return 0, {}


def models_below(folder: Path, archive: Path) -> Found:
    """Return the models of an unpacked archive.

    Raises:
        UsageError: It is none that `nnunet models export` wrote.
    """
    manifests = [path for path in folder.rglob(MANIFEST) if path.is_file()]
    models = sorted(path.parent for path in folder.rglob(MODEL) if path.is_file())
    if not manifests or not models:
        raise UsageError(
            f"{archive} is no model that 'nnunet models export' wrote: it has no {MANIFEST} and "
            f"{MODEL}. Of an earlier nnU-Net? Import it first: nnunet models import {archive}"
        )
    for model in models:  # as `models install` places them
        (model / MANIFEST).write_bytes(manifests[0].read_bytes())
    runs = sorted({model.parent for model in models})
    if len(runs) == 1:
        return run_of(runs[0])
    return Found("run", models[0].parent, tuple(models), archive.name)
