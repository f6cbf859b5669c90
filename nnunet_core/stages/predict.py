"""Predict cases: prepare, apply the networks of the folds, restore, postprocess, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from nnunet_core.contracts.preprocessor import Preprocessor
from nnunet_core.contracts.trainer import Runtime, TrainedModel
from nnunet_core.data.dataset import CaseFiles, Dataset, find_cases
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.errors import NnunetError, StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.settings import build
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.cascade import append_one_hot, prepared_label
from nnunet_core.stages.prepare import on_device, prepare_case
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.raw import find_format

RECORD = "predictions.json"


@dataclass(frozen=True)
class PredictionOptions:
    """How to predict.

    Attributes:
        folds: Fold names; empty means every trained numbered fold.
        mirroring: Average over mirrored inputs.
        step_size: Sliding-window step as a fraction of the patch, in (0, 1].
        postprocess: Apply what was found useful on the validation cases.
        save_probabilities: Also write `CASE.npz` with `probabilities` float16 (K, Z, Y, X).
        overwrite: Replace predictions of another model.
        runtime: Device and precision.
    """

    folds: tuple[str, ...] = ()
    mirroring: bool = True
    step_size: float = 0.5
    postprocess: bool = True
    save_probabilities: bool = False
    overwrite: bool = False
    runtime: Runtime = field(default_factory=Runtime)


class PredictionRecord(files.Document):
    """What wrote an output folder: predictions of the same identity are kept on a rerun.

    Attributes:
        model, folds: Where the networks lie.
        identity: Of everything that a prediction depends on.
        options: How it was predicted.
        outputs: Names of the label files that are, or will be, of this identity.
    """

    model: str
    folds: tuple[str, ...]
    identity: str
    options: dict[str, Any]
    outputs: tuple[Annotated[str, Field(pattern=r"^[^/\\]+$")], ...] = ()


class Predictor:
    """A model in memory: raw case in, label map on the original grid out."""

    def __init__(
        self, model: Model, registry: Registry, options: PredictionOptions, report: Reporter
    ) -> None:
        self.document = model.document
        self.folds = model.folds(options.folds)
        components = {}
        for kind in ("preprocessor", "network", "trainer", "postprocessor"):
            resolved, warning = model.component(registry, kind)
            if warning:
                report.warning(warning)
            components[kind] = build(resolved)
        self.preprocessor: Preprocessor = on_device(
            components["preprocessor"], options.runtime.device
        )
        self._postprocessor = components["postprocessor"]
        self._state = (
            postprocessing_state(model, weights_digests(self.folds))
            if options.postprocess
            else None
        )
        if options.postprocess and self._state is None:
            report.warning(
                f"No postprocessing: none was fitted on the validation cases of {', '.join(fold.name for fold in self.folds)} of "
                f"{model.folder}. 'nnunet run' with these folds does that."
            )
        trained = TrainedModel(
            folds=self.folds,
            configuration=self.document.configuration,
            labels=self.document.labels,
            network=components["network"],
            runtime=options.runtime,
            mirroring=options.mirroring,
            mirror_axes=self.document.mirror_axes,
            step_size=options.step_size,
        )
        self._probabilities = components["trainer"].predictor(trained)
        before = _previous(model, options)
        self._previous = (
            None if before is None else Predictor(before[0], registry, before[1], report)
        )

    def __call__(
        self, dataset: Dataset, case: CaseFiles
    ) -> tuple[np.ndarray, np.ndarray, Geometry]:
        """Predict one case.

        Returns:
            Label map uint8 or uint16 (Z, Y, X), probabilities float32 (K, Z, Y, X), geometry of the image.
        """
        raw = dataset.load(case)
        prepared = prepare_case(self.preprocessor, raw, self.document.configuration)
        images = prepared.images
        if self._previous is not None:
            before, _, _ = self._previous(dataset, case)
            label = prepared_label(self.preprocessor, before, prepared.geometry)
            images = append_one_hot(images, label, self.document.labels.foreground)
        probabilities = self.preprocessor.restore(self._probabilities(images), prepared.geometry)
        segmentation = to_segmentation(probabilities, self.document.labels)
        if self._state is not None:
            segmentation = self._postprocessor.apply(segmentation, raw.geometry, self._state)
        return segmentation, probabilities, raw.geometry


def _previous(model: Model, options: PredictionOptions) -> tuple[Model, PredictionOptions] | None:
    """Return the stage before a cascade and how it predicts: with the same folds if it has them, else with all of its own."""
    name = model.document.configuration.previous
    if name is None:
        return None
    stage = Model.open(model.folder.parent / name)
    return stage, options if set(options.folds) <= set(stage.trained()) else replace(
        options, folds=()
    )


def to_segmentation(probabilities: np.ndarray, labels: Labels) -> np.ndarray:
    """Turn probabilities (K, Z, Y, X) to a label map (Z, Y, X) of type uint8 (uint16 above 255).

    Classes: the first maximum wins. Regions: values above 0.5, later regions over earlier ones (spec: inference,
    section 2, step 6).
    """
    highest = max(labels.foreground, default=0)
    dtype = np.uint8 if highest < 256 else np.uint16
    if not labels.regions:
        return probabilities.argmax(axis=0).astype(dtype)
    segmentation = np.zeros(probabilities.shape[1:], dtype)
    for channel, value in zip(probabilities, labels.region_order, strict=True):
        segmentation[channel > 0.5] = value
    return segmentation


class PostprocessingRecord(files.Document):
    """What a postprocessor decided on validation cases.

    Attributes:
        component: The postprocessor.
        folds: Whose validation cases it saw.
        weights: {fold: digest of its weights file}.
        inputs: Digest of the predictions that it saw.
        state: Its decision.
    """

    component: ComponentRecord
    folds: tuple[str, ...]
    weights: dict[str, str]
    inputs: str
    state: dict[str, Any]


def postprocessing_file(
    model_folder: Path, component: ComponentRecord, folds: Sequence[str]
) -> Path:
    """Return where the state of a fitted postprocessor lies; each choice of settings and folds has its own file."""
    name = component.reference.rpartition("/")[2].replace(":", ".")
    key = files.digest([component.reference, dict(component.settings), sorted(folds)])
    return model_folder / "postprocessing" / f"{name}-{key[:8]}.json"


def postprocessing_state(model: Model, weights: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the state that the model's postprocessor was fitted to on the validation cases of folds, or of more.

    Args:
        model: Whose postprocessor.
        weights: Of these folds, see `models.weights_digests`.

    Returns:
        None when there is none, or when one of the folds has been trained anew since.
    """
    component = model.document.components["postprocessor"].identity()
    records = (
        PostprocessingRecord.read(path)
        for path in sorted((model.folder / "postprocessing").glob("*.json"))
    )
    fitting = [
        record
        for record in records
        if record.component.identity() == component and weights.items() <= record.weights.items()
    ]
    return min(fitting, key=lambda record: len(record.folds)).state if fitting else None


def predict_folder(
    model: Model,
    source: Path,
    output: Path,
    registry: Registry,
    options: PredictionOptions | None = None,
    report: Reporter | None = None,
) -> list[Path]:
    """Predict every case of a folder of images `CASE_0000.ext`; return the label files.

    A rerun predicts what is missing. A case that fails does not stop the others.

    Raises:
        DatasetError: No cases, or channel files are missing.
        UsageError: The output folder holds predictions of something else.
        NnunetError: Cases failed; the message says which and why.
    """
    options, report = options or PredictionOptions(), report or Silence()
    if not 0 < options.step_size <= 1:
        raise UsageError(
            f"The step size is {options.step_size}; it is a fraction of the patch in (0, 1]."
        )
    dataset = _as_dataset(model, source, registry)
    cases = find_cases(source, dataset.ending, len(dataset.channels), dataset.image_format)
    outputs = {case.name: output / f"{case.name}{dataset.label_ending}" for case in cases}
    claim = _claim(output, model, options, list(outputs.values()))
    todo = [case for case in cases if claim.needs(outputs[case.name], options)]
    if not todo:
        claim.take(output)
        return list(outputs.values())
    predictor = Predictor(model, registry, options, report)
    claim.take(output)
    failures = []
    with report.track("predict", len(cases), len(cases) - len(todo)) as tracker:
        for case in todo:
            try:
                _predict_one(predictor, dataset, case, outputs[case.name], options)
            except StorageError:
                raise
            except NnunetError as error:
                failures.append(f"{case.name}: {error}")
            tracker.advance(1, case.name)
    if failures:
        raise NnunetError(f"{len(failures)} of {len(cases)} cases failed:\n" + "\n".join(failures))
    return list(outputs.values())


def _predict_one(
    predictor: Predictor,
    dataset: Dataset,
    case: CaseFiles,
    output: Path,
    options: PredictionOptions,
) -> None:
    segmentation, probabilities, geometry = predictor(dataset, case)
    if options.save_probabilities:
        compact = probabilities.astype(np.float16)
        files.write_with(
            _probabilities_file(output),
            lambda file: np.savez_compressed(file, probabilities=compact),
        )
    dataset.label_format.write(output, segmentation, geometry)


def _exists(path: Path, options: PredictionOptions) -> bool:
    return path.is_file() and (
        not options.save_probabilities or _probabilities_file(path).is_file()
    )


@dataclass(frozen=True)
class _Claim:
    """What a prediction makes of its output folder.

    Attributes:
        record: Who writes the folder from now on.
        stale: Files of somebody else that are in its place; removed when nothing can be wrong with the request any more.
    """

    record: PredictionRecord
    stale: tuple[Path, ...]

    def needs(self, output: Path, options: PredictionOptions) -> bool:
        """Return whether a label file has to be made."""
        return output in self.stale or not _exists(output, options)

    def take(self, folder: Path) -> None:
        """Remove what is stale, and write the record."""
        for file in self.stale:
            for old in (file, _probabilities_file(file)):
                old.unlink(missing_ok=True)
        self.record.write(folder / RECORD)


def _claim(
    output: Path, model: Model, options: PredictionOptions, outputs: Sequence[Path]
) -> _Claim:
    """Say what becomes of an output folder; refuse one that holds predictions of something else. Changes nothing."""
    identity, path = _identity(model, options), output / RECORD
    found = PredictionRecord.read(path) if path.is_file() else None
    same = found is not None and found.identity == identity
    own = {output / name for name in found.outputs} if found is not None and same else set()
    others = {output / name for name in found.outputs} if found is not None and not same else set()
    stale = sorted(file for file in {*outputs, *others} - own if file.is_file())
    if stale and not options.overwrite:
        raise UsageError(
            f"{output} holds predictions of another model or with other options ({stale[0].name}, "
            f"{len(stale)} in all). Choose another output folder, or pass --overwrite to replace them."
        )
    record = PredictionRecord(
        model=str(model.folder),
        folds=tuple(fold.name for fold in model.folds(options.folds)),
        identity=identity,
        options=_chosen(options),
        outputs=tuple(sorted(file.name for file in own | set(outputs))),
    )
    return _Claim(record, tuple(stale))


def _identity(model: Model, options: PredictionOptions) -> str:
    """Identify everything that a prediction depends on, the stage before a cascade included."""
    weights = weights_digests(model.folds(options.folds))
    state = postprocessing_state(model, weights) if options.postprocess else None
    before = _previous(model, options)
    parts = [
        model.document.model_dump(mode="json"),
        list(weights.values()),
        _chosen(options),
        state,
    ]
    return files.digest(parts if before is None else [*parts, _identity(*before)])


def _chosen(options: PredictionOptions) -> dict[str, Any]:
    return {
        "mirroring": options.mirroring,
        "step_size": options.step_size,
        "postprocess": options.postprocess,
    }


def _probabilities_file(label: Path) -> Path:
    return label.with_name(f"{label.name.removesuffix('.gz').rpartition('.')[0]}.npz")


def _as_dataset(model: Model, source: Path, registry: Registry) -> Dataset:
    """Return a dataset without training cases that reads images as the model's dataset did."""
    document = model.document
    return Dataset(
        folder=source,
        name=document.dataset,
        channels=document.channels,
        labels=document.labels,
        ending=document.file_ending,
        image_format=find_format(document.file_ending, registry, document.image_format),
        label_ending=document.label_ending,
        label_format=find_format(document.label_ending, registry, document.label_format),
        training=(),
        document={},
    )
