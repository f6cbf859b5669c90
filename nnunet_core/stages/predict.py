"""Predict a folder of images with a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.dataset import CaseFiles, Dataset
from nnunet_core.data.images import Geometry
from nnunet_core.errors import NnunetError, PluginError, StorageError, UsageError, counted
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.provenance import component_record
from nnunet_core.runtime import files, locks
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.cascade import prepared_label
from nnunet_core.stages.case import CasePredictor
from nnunet_core.stages.dataset import find_cases, remarks
from nnunet_core.stages.formats import OriginalValues, find_format
from nnunet_core.stages.prepare import prepare_case
from nnunet_core.store.models import FILE as MODEL_FILE
from nnunet_core.store.models import Model, check_weights, weights_digests
from nnunet_core.store.postprocessing import postprocessing_state
from nnunet_core.store.predictions import (
    Claim,
    PredictionRecord,
    claim,
)
from nnunet_core.store.probabilities import probabilities_file, write_probabilities


@dataclass(frozen=True)
class PredictionOptions:
    """How to predict.

    Attributes:
        folds: Fold names; empty means every trained numbered fold.
        predictor: Reference; None is the one that the model was validated with, with its settings.
        settings: Of the predictor, on top of these.
        postprocess: Apply what was found useful on the validation cases.
        save_probabilities: Also write `CASE.b2nd`, see `store.probabilities`.
        restore_values: Write label values as they were before `dataset convert --renumber`.
        overwrite: Replace predictions of another model, and foreign files in their places.
        runtime: Device and precision.
    """

    folds: tuple[str, ...] = ()
    predictor: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    postprocess: bool = True
    save_probabilities: bool = False
    restore_values: bool = False
    overwrite: bool = False
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class ModelPredictor:
    """A model in memory: raw case in, cleaned label map on the grid of its file out.

    Attributes:
        model: What it is.
        case: Its networks.
        clean: Postprocessor and what it decided on the validation cases; None leaves label maps as
            they are.
        previous: The stage before, in a cascade.
    """

    model: Model
    case: CasePredictor
    clean: tuple[Postprocessor, Mapping[str, Any]] | None
    previous: ModelPredictor | None

    @classmethod
    def open(
        cls, model: Model, registry: Registry, options: PredictionOptions, report: Reporter
    ) -> ModelPredictor:
        """Load a model and, in a cascade, the stage before it.

        Raises:
            PluginError: A package that the model needs is missing; the message says what to
                install.
            StorageError: Weights are damaged.
        """
        folds = model.folds(options.folds)
        for fold in folds:
            check_weights(fold)
        document = model.document
        networks = TrainedModel(
            folds=folds,
            configuration=document.configuration,
            labels=document.labels,
            network=built(model.component(registry, "network", report)),
            runtime=options.runtime,
            mirror_axes=document.mirror_axes,
        )
        predictor = built(_predictor(model, registry, options, report))
        preprocessor = built(model.component(registry, "preprocessor", report))
        case = CasePredictor.open(networks, predictor, preprocessor)
        state = postprocessing_state(model, weights_digests(folds)) if options.postprocess else None
        if options.postprocess and state is None:
            report.warning(
                "No postprocessing: none was fitted on the validation cases of "
                f"{', '.join(fold.name for fold in folds)} of {model.folder}. 'nnunet run' with "
                "these folds does that."
            )
        clean = None
        if state is not None:
            clean = built(model.component(registry, "postprocessor", report)), state
        before = _previous(model, options)
        previous = None if before is None else cls.open(before[0], registry, before[1], report)
        return cls(model, case, clean, previous)

    def __call__(
        self, dataset: Dataset, case: CaseFiles
    ) -> tuple[np.ndarray, np.ndarray, Geometry]:
        """Predict one case.

        Returns:
            Label map uint8 or uint16 (Z, Y, X), probabilities float32 (K, Z, Y, X), geometry of the
            image.
        """
        raw = dataset.load(case)
        preprocessor = self.case.preprocessor
        prepared = prepare_case(preprocessor, raw, self.model.document.configuration)
        label = None
        if self.previous is not None:
            before, _, _ = self.previous(dataset, case)
            label = prepared_label(preprocessor, before, prepared.geometry)
        segmentation, probabilities = self.case(prepared.images, prepared.geometry, label)
        if self.clean is not None:
            postprocessor, state = self.clean
            segmentation = postprocessor.apply(segmentation, raw.geometry, state)
        return segmentation, probabilities, raw.geometry


def predict_folder(
    model: Model,
    source: Path,
    output: Path,
    registry: Registry,
    options: PredictionOptions | None = None,
    report: Reporter | None = None,
) -> list[Path]:
    """Predict every case of a folder of images `CASE_0000.ext`, or `CASE.ext` for one channel, or
    of one file; return the label files.

    A rerun predicts what is missing. A case that fails does not stop the others.

    Raises:
        DatasetError: No cases, or channel files are missing.
        UsageError: The output folder is the one of the images, holds predictions of something else
            or foreign files, or the predictor refuses its settings.
        PluginError: The model names code that no plugin registers, and is not trusted; nothing of
            it was imported.
        StorageError: Another prediction writes into the output folder now.
        NnunetError: Cases failed; the message says which and why.
    """
    options, report = options or PredictionOptions(), report or Silence()
    refuse_own_input(source, output)
    _check_components(model, registry, options, report)
    dataset = _as_dataset(model, source, registry)
    if options.restore_values:
        dataset = replace(dataset, label_format=_restoring(model, dataset))
    cases = find_cases(source, dataset, registry)
    for message in remarks(dataset, cases):
        report.warning(message)
    outputs = {c.name: below(output, f"{c.name}{dataset.label_ending}") for c in cases}
    _keep_images(cases, outputs)
    record = _record(model, registry, options)
    claimed = claim(output, record, list(outputs.values()), options.overwrite)
    if claimed.is_done(options.save_probabilities):
        return list(outputs.values())
    # before anything is written: a request that cannot be right leaves no folder
    predictor = ModelPredictor.open(model, registry, options, report)
    with locks.held(output / locks.NAME, "predictions", report, wait=False):
        # another prediction may have written there since
        claimed = claim(output, record, list(outputs.values()), options.overwrite)
        _predict_cases(predictor, dataset, cases, claimed, options, report)
    return list(outputs.values())


def _keep_images(cases: Sequence[CaseFiles], outputs: Mapping[str, Path]) -> None:
    """Raise UsageError where a prediction would take the place of its image."""
    for case in cases:
        if outputs[case.name].resolve() in [path.resolve() for path in case.images]:
            raise UsageError(
                f"The prediction of {case.name} would replace its image "
                f"{outputs[case.name]}. Choose another output folder."
            )


def _predict_cases(
    predictor: ModelPredictor,
    dataset: Dataset,
    cases: Sequence[CaseFiles],
    claimed: Claim,
    options: PredictionOptions,
    report: Reporter,
) -> None:
    """Predict the cases that are missing in an output folder that nobody else writes to."""
    outputs = {case.name: claimed.folder / f"{case.name}{dataset.label_ending}" for case in cases}
    todo = [case for case in cases if claimed.needs(outputs[case.name], options.save_probabilities)]
    claimed.take(report)
    failures = []
    with report.track("predict", len(cases), len(cases) - len(todo)) as tracker:
        for case in todo:
            try:
                segmentation, probabilities, geometry = predictor(dataset, case)
                for note in geometry.notes:
                    report.warning(note)
                if outputs[case.name] in claimed.stale:
                    probabilities_file(outputs[case.name]).unlink(missing_ok=True)
                if options.save_probabilities:
                    write_probabilities(probabilities_file(outputs[case.name]), probabilities)
                dataset.label_format.write(outputs[case.name], segmentation, geometry)
            except StorageError:
                raise
            except NnunetError as error:
                failures.append(f"{case.name}: {error}")
            tracker.advance(1, case.name)
    if failures:
        raise NnunetError(
            f"{len(failures)} of {counted(len(cases), 'case')} failed:\n" + "\n".join(failures)
        )
    claimed.finish()


def _check_components(
    model: Model, registry: Registry, options: PredictionOptions, report: Reporter
) -> None:
    """Raise where a component that predicts is not there, or is not trusted: before anything that
    the model names is imported.
    """
    kinds = ["preprocessor", "network", *(["postprocessor"] if options.postprocess else [])]
    for stage in model.stages():
        named = kinds if options.predictor is not None else [*kinds, "predictor"]
        stage.check_trusted(named, report)
        _predictor(stage, registry, options, Silence())
        for kind in kinds:
            stage.component(registry, kind, Silence())


def refuse_own_input(source: Path, output: Path) -> None:
    """Raise UsageError where predictions would be written among the images that they are of."""
    if source.resolve() == output.resolve():
        raise UsageError(
            f"The predictions cannot be written to {output}, the folder of their own images: the "
            "next prediction would take them for images. Choose another output folder."
        )


def _restoring(model: Model, dataset: Dataset) -> OriginalValues:
    """Return the format that writes the original values of labels.

    Raises:
        UsageError: The labels of the model's dataset were not renumbered.
    """
    originals = model.document.original_values
    if not originals:
        raise UsageError(
            f"The labels of {model.document.dataset} were not renumbered, so that there are no "
            "values to restore. Leave out --restore-values."
        )
    return OriginalValues(dataset.label_format, originals)


def _predictor(
    model: Model, registry: Registry, options: PredictionOptions, report: Reporter
) -> Resolved:
    """Return the predictor that was asked for, or the one that the model was validated with."""
    if options.predictor is not None:
        return registry.resolve("predictor", options.predictor).with_settings(options.settings)
    try:
        validated = model.component(registry, "predictor", report)
    except PluginError as error:
        raise PluginError(
            f"{error} Or choose another one with --predictor; 'nnunet plugins list' shows them."
        ) from error
    return validated.with_settings(options.settings)


def _previous(model: Model, options: PredictionOptions) -> tuple[Model, PredictionOptions] | None:
    """Return the stage before a cascade and how it predicts: with the same folds if it has them,
    else with all of its own.
    """
    stages = model.stages()
    if len(stages) == 1:
        return None
    stage = stages[-2]
    return stage, options if set(options.folds) <= set(stage.trained()) else replace(
        options, folds=()
    )


def _record(model: Model, registry: Registry, options: PredictionOptions) -> PredictionRecord:
    """Identify everything that a prediction depends on, the stage before a cascade included."""
    folds = model.folds(options.folds)
    weights = weights_digests(folds)
    predictor = component_record(_predictor(model, registry, options, Silence()))
    before = _previous(model, options)
    parts = [
        model.document.model_dump(
            mode="json", exclude={"components": {"predictor"}, "original_values": True}
        ),
        predictor.identity(),
        list(weights.values()),
        options.postprocess,
        postprocessing_state(model, weights) if options.postprocess else None,
        None if before is None else _record(before[0], registry, before[1]).identity,
    ]
    if options.restore_values:
        parts.append(sorted(model.document.original_values.items()))
    return PredictionRecord(
        model=str(model.folder),
        folds=tuple(fold.name for fold in folds),
        identity=files.digest(parts),
        predictor=predictor,
        postprocess=options.postprocess,
    )


def _as_dataset(model: Model, source: Path, registry: Registry) -> Dataset:
    """Return a dataset without training cases that reads images as the model's dataset did."""
    document, file = model.document, model.folder / MODEL_FILE
    return Dataset(
        folder=source,
        name=document.dataset,
        channels=document.channels,
        labels=document.labels,
        ending=document.file_ending,
        image_format=find_format(document.file_ending, registry, document.image_format, file),
        label_ending=document.label_ending,
        label_format=find_format(
            document.label_ending, registry, document.label_format, file, "label_format"
        ),
        training=(),
        document={},
    )
