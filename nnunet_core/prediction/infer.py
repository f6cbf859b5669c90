"""Carry out an inference.json: predict with every model in it, average, clean."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_core.contracts.abilities import WritesSegmentations, ability
from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.data.dataset import CaseFiles, Dataset
from nnunet_core.data.images import ending_of
from nnunet_core.errors import NnunetError, UsageError
from nnunet_core.prediction.averaging import Averaging, LabelFiles
from nnunet_core.prediction.ensemble import (
    average,
    common_cases,
    ensemble_record,
    format_of,
    read_member,
)
from nnunet_core.prediction.inputs import dataset_of, find_inputs
from nnunet_core.prediction.members import Selected, trained_weights
from nnunet_core.prediction.predict import (
    MAP_ENDING,
    PredictionOptions,
    file_identity,
    inputs_of,
    keep_images,
    one_file_only,
    predict_file,
    predict_folder,
    refuse_own_input,
)
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.formats import find_format, known_endings, meaning_of
from nnunet_core.stages.select import Trained
from nnunet_core.store.calibration import stored_temperature
from nnunet_core.store.postprocessing import PostprocessingRecord
from nnunet_core.store.predictions import FileRecord, Part, PredictionRecord, claim, is_made

_MEMBERS = "members"


def predict_inference(
    path: Path,
    source: Path | Sequence[Path],
    output: Path,
    registry: Registry,
    options: PredictionOptions | None = None,
    report: Reporter | None = None,
    trusted: bool = False,
) -> list[Path]:
    """Predict images as an inference.json says; return the label files.

    The models of an ensemble predict one after the other into `OUTPUT/members`, which is removed
    when everything is averaged; an interrupted prediction goes on.

    Args:
        path: The inference.json.
        source: See `predict_folder`.
        output: Folder of the label files.
        registry: Of the components.
        options: How to predict; folds are those of the file.
        report: Where progress goes.
        trusted: See `Model`.

    Raises:
        UsageError: Options that the file decides, or see `predict_folder`.
        StorageError: A model, or its postprocessing, is another one than when the file was written.
        NnunetError: Cases failed, after the others are predicted.
    """
    options, report = options or PredictionOptions(), report or Silence()
    selected = Selected.read(path, options, trusted)
    if selected.is_ensemble:
        plan = _Ensemble.of(selected, registry, options, trusted)
        return plan.predict(source, output, registry, report)
    model, options = selected.alone(options)
    return predict_folder(model, source, output, registry, options, report)


def predict_inference_file(
    path: Path,
    source: Path | Sequence[Path],
    output: Path,
    registry: Registry,
    options: PredictionOptions,
    report: Reporter,
    trusted: bool = False,
) -> Path:
    """Predict one case into one file, whose ending decides its format; see `predict_inference`.

    Raises:
        UsageError: See `predict_file`.
    """
    selected = Selected.read(path, options, trusted)
    if not selected.is_ensemble:
        model, options = selected.alone(options)
        return predict_file(model, source, output, registry, options, report)
    first = selected.models[0]
    plan = _Ensemble.of(selected, registry, options, trusted)
    options = replace(options, ending=ending_of(output.name, known_endings(registry)))
    places = [source] if isinstance(source, Path) else list(source)
    _, cases = find_inputs(places, dataset_of(first.model, places[0], registry), registry)
    if len(cases) > 1 or options.part != Part():
        raise UsageError(one_file_only(output, len(cases)))
    keep_images(cases, {cases[0].name: output})
    identity = file_identity(plan.identity(), cases[0])
    if not options.overwrite and is_made(output, identity, options.beside, report):
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        where = (Path(folder), registry, options, report, trusted)
        (written,) = predict_inference(path, source, *where)
        beside = options.beside
        for made, place in zip(beside.files(written), beside.files(output), strict=True):
            place.parent.mkdir(exist_ok=True)
            made.replace(place)
        written.replace(output)
    FileRecord.note(output, identity)
    return output


@dataclass(frozen=True)
class _Ensemble:
    """Models that predict together.

    Attributes:
        models: Of equal labels.
        decided: The postprocessing, or None.
        clean: The same, built.
        temperatures: Of the models, where they are asked for.
        options: How to predict.
    """

    models: Sequence[Trained]
    decided: PostprocessingRecord | None
    clean: tuple[Postprocessor, Mapping[str, Any]] | None
    temperatures: tuple[float, ...]
    options: PredictionOptions

    @classmethod
    def of(
        cls, selected: Selected, registry: Registry, options: PredictionOptions, trusted: bool
    ) -> _Ensemble:
        """Build what is needed of models that predict together, before anything is written."""
        models, clean = selected.models, selected.cleaning(registry, trusted)
        temperatures: tuple[float, ...] = ()
        if options.calibrated:
            temperatures = tuple(stored_temperature(m.model, trained_weights(m)) for m in models)
        return cls(models, selected.decided, clean, temperatures, options)

    def predict(
        self, source: Path | Sequence[Path], output: Path, registry: Registry, report: Reporter
    ) -> list[Path]:
        """Predict, average and clean; see `predict_inference`."""
        options, model = self.options, self.models[0].model
        places = [source] if isinstance(source, Path) else list(source)
        for place in places:
            refuse_own_input(place, output)
        own = dataset_of(model, places[0], registry)
        # remarks on the images are those of the first model that predicts
        dataset, cases = inputs_of(own, model, places, registry, options, Silence())
        outputs = {case.name: below(output, f"{case.name}{dataset.label_ending}") for case in cases}
        keep_images(cases, outputs)
        ending = self._members_ending(registry)
        averaging = self._averaging(dataset, outputs, cases, ending, registry)
        where = (output, self._record(averaging.kind), list(outputs.values()), options.overwrite)
        claimed = claim(*where)
        mine = [outputs[case.name] for case in options.part.of(cases)]
        if claimed.is_done(averaging.beside):
            return mine
        found: dict[str, list[Path]] = {}
        failures: list[str] = []
        if any(claimed.needs(path, averaging.beside) for path in mine):
            folders, failures = self._predict_members(places, output, ending, registry, report)
            names = [case.name for case in options.part.of(cases)]
            found = _complete(folders, names)
        if found or not failures:
            how = (averaging, options.overwrite, report, list(outputs.values()), options.part)
            average(found, output, where[1], *how)
        if failures:
            raise NnunetError("\n".join(failures))
        if claim(*where).is_done(averaging.beside):  # with the last part
            shutil.rmtree(output / _MEMBERS, ignore_errors=True)
        return mine

    def _predict_members(
        self,
        places: Sequence[Path],
        output: Path,
        ending: str,
        registry: Registry,
        report: Reporter,
    ) -> tuple[list[Path], list[str]]:
        """Predict with every model; return their folders, and what failed."""
        options = replace(
            self.options,
            postprocess=False,
            save_probabilities=True,
            entropy=False,
            disagreement=False,
            calibrated=False,
            restore_values=False,
            overwrite=True,
            ending=ending,
        )
        folders, failures = [], []
        for trained in self.models:
            folder = below(output, _MEMBERS, trained.title.replace("/", "."))
            report.message(f"model: {trained.title}, folds {', '.join(trained.folds)}")
            how = replace(options, folds=trained.folds)
            try:
                predict_folder(trained.model, places, folder, registry, how, report)
            except NnunetError as error:
                if type(error) is not NnunetError:
                    raise
                # cases failed; the others are predicted
                failures.append(f"{trained.title}: {error}")
            folders.append(folder)
        return folders, failures

    def _members_ending(self, registry: Registry) -> str:
        """Return how label files of the members end; empty where that of the models will do."""
        documents = [trained.model.document for trained in self.models]
        kinds = [LabelFiles(d.labels, d.label_ending, d.label_format) for d in documents]
        formats = [format_of(kind, registry) for kind in kinds]
        refer = any(ability(each, WritesSegmentations) is not None for each in formats)
        return MAP_ENDING if refer or any(kind != kinds[0] for kind in kinds) else ""

    def _averaging(
        self,
        dataset: Dataset,
        outputs: Mapping[str, Path],
        cases: Sequence[CaseFiles],
        ending: str,
        registry: Registry,
    ) -> Averaging:
        document, options = self.models[0].model.document, self.options
        named = None if options.ending else document.label_format
        members = LabelFiles(document.labels, document.label_ending, document.label_format)
        if ending:
            members = LabelFiles(document.labels, ending)
        return Averaging(
            kind=LabelFiles(document.labels, dataset.label_ending, named),
            reading=format_of(members, registry),
            writing=dataset.label_format,
            clean=self.clean,
            beside=options.beside,
            map_format=find_format(MAP_ENDING, registry),
            temperatures=self.temperatures,
            meanings={outputs[case.name]: meaning_of(document, case) for case in cases},
        )

    def identity(self) -> str:
        """Return a digest of everything that a prediction depends on but its images."""
        options = self.options
        parts = []
        for trained in self.models:
            document = trained.model.document
            predictor = document.components["predictor"].identity()
            chosen = predictor if options.predictor is None else options.predictor
            weights, settings = trained_weights(trained), dict(options.settings)
            parts.append([document.digest(), weights, chosen, settings])
        state = None if self.decided is None else self.decided.state
        return files.digest(
            [_MEMBERS, parts, state, options.restore_values, list(self.temperatures)]
        )

    def _record(self, kind: LabelFiles) -> PredictionRecord:
        places = [str(trained.model.folder) for trained in self.models]
        record = ensemble_record(places, self.identity(), kind, self.decided, self.temperatures)
        tolerances = self.models[0].model.document.tolerances
        return record.model_copy(update={"tolerances": tolerances})


def _complete(folders: Sequence[Path], names: Sequence[str]) -> dict[str, list[Path]]:
    """Return {case: the label files of the members} of the cases that every model predicted."""
    members = [read_member(folder) for folder in folders]
    there = [n for n in names if all(n in m.cases and m.cases[n].is_file() for m in members)]
    chosen = [replace(m, cases={n: m.cases[n] for n in there}) for m in members]
    return common_cases(chosen) if there else {}
