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
from nnunet_core.data.images import ImageFormat, ending_of
from nnunet_core.errors import NnunetError, StorageError, UsageError, counted
from nnunet_core.prediction.ensemble import (
    Averaging,
    LabelFiles,
    average,
    ensemble_record,
    format_of,
    opened,
    read_member,
)
from nnunet_core.prediction.inputs import dataset_of, find_inputs
from nnunet_core.prediction.predict import PredictionOptions, predict_folder, refuse_own_input
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.formats import known_endings, with_original_values
from nnunet_core.stages.select import Trained
from nnunet_core.store.inference import open_member, read_inference
from nnunet_core.store.models import weights_digests
from nnunet_core.store.postprocessing import Decision, PostprocessingRecord, postprocessing_state
from nnunet_core.store.predictions import Part, PredictionRecord, claim

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
    document = read_inference(path)
    if options.folds:
        raise UsageError(f"{path} says which folds predict. Leave out --folds.")
    models = [
        Trained(open_member(record, path, trusted), record.folds) for record in document.members
    ]
    decided = document.postprocessing if options.postprocess else None
    if len(models) > 1:
        plan = _Ensemble.of(models, decided, registry, options, trusted)
        return plan.predict(source, output, registry, report)
    (single,) = models
    options = replace(options, folds=single.folds, postprocess=decided is not None)
    if decided is not None:
        _check_postprocessing(single, decided, path)
    return predict_folder(single.model, source, output, registry, options, report)


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
        UsageError: There are several cases, or the file exists and is not to be overwritten.
    """
    if output.exists() and not options.overwrite:
        raise UsageError(f"{output} exists already. Choose another name, or pass --overwrite.")
    options = replace(options, ending=ending_of(output.name, known_endings(registry)))
    document = read_inference(path)
    model = open_member(document.members[0], path, trusted)
    places = [source] if isinstance(source, Path) else list(source)
    _, cases = find_inputs(places, dataset_of(model, places[0], registry), registry)
    if len(cases) > 1:
        raise UsageError(
            f"{output} is one file; there are {counted(len(cases), 'case')} to predict. Give a "
            "folder as OUTPUT."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        where = (Path(folder), registry, options, report, trusted)
        (written,) = predict_inference(path, source, *where)
        written.replace(output)
    return output


def _check_postprocessing(single: Trained, decided: PostprocessingRecord, path: Path) -> None:
    """Raise StorageError where the model would be cleaned otherwise than the file says."""
    folders = [single.model.fold_folder(fold) for fold in single.folds]
    if postprocessing_state(single.model, weights_digests(folders)) != decided.state:
        raise StorageError(
            f"The postprocessing of {single.model.folder} is another one than {path} says. Run "
            "'nnunet find-best' again, or predict without it (--no-postprocessing)."
        )


@dataclass(frozen=True)
class _Ensemble:
    """Models that predict together.

    Attributes:
        models: Of equal labels.
        decided: The postprocessing, or None.
        clean: The same, built.
        options: How to predict.
    """

    models: Sequence[Trained]
    decided: PostprocessingRecord | None
    clean: tuple[Postprocessor, Mapping[str, Any]] | None
    options: PredictionOptions

    @classmethod
    def of(
        cls,
        models: Sequence[Trained],
        decided: PostprocessingRecord | None,
        registry: Registry,
        options: PredictionOptions,
        trusted: bool,
    ) -> _Ensemble:
        """Check that models can predict together, before anything is written."""
        if options.part != Part():
            raise UsageError(
                "--part splits the cases of one model. Predict with each model and --part, and "
                "join the folders with 'nnunet ensemble'."
            )
        if options.entropy or options.disagreement or options.calibrated:
            raise UsageError(
                "--entropy, --disagreement and --calibrated are of one model, and several predict "
                "here. Predict with each model and these options, or leave them out."
            )
        first = models[0]
        for other in models[1:]:
            if other.model.document.labels != first.model.document.labels:
                raise UsageError(
                    f"{first.title} and {other.title} have different labels, so that their "
                    "probabilities cannot be averaged. Run 'nnunet find-best' again."
                )
        clean = None
        if decided is not None:
            component = decided.component
            decision = Decision(component.reference, component.settings, decided.state)
            clean = opened(decision, registry, trusted)
        return cls(models, decided, clean, options)

    def predict(
        self, source: Path | Sequence[Path], output: Path, registry: Registry, report: Reporter
    ) -> list[Path]:
        """Predict, average and clean; see `predict_inference`."""
        options = self.options
        places = [source] if isinstance(source, Path) else list(source)
        for place in places:
            refuse_own_input(place, output)
        model = self.models[0].model
        _, cases = find_inputs(places, dataset_of(model, places[0], registry), registry)
        averaging = self._averaging(registry)
        record = self._record(averaging.kind)
        wanted = [below(output, f"{case.name}{averaging.kind.ending}") for case in cases]
        if claim(output, record, wanted, options.overwrite).is_done(averaging.beside):
            return wanted
        folders, failures = self._predict_members(places, output, registry, report)
        members = [read_member(folder) for folder in folders]
        names = [n for n in members[0].cases if all(m.cases[n].is_file() for m in members)]
        members = [replace(m, cases={n: m.cases[n] for n in names}) for m in members]
        if names:
            average(members, output, record, averaging, options.overwrite, report)
        if failures:
            raise NnunetError("\n".join(failures))
        shutil.rmtree(output / _MEMBERS)
        return wanted

    def _predict_members(
        self, places: Sequence[Path], output: Path, registry: Registry, report: Reporter
    ) -> tuple[list[Path], list[str]]:
        """Predict with every model; return their folders, and what failed."""
        options = replace(
            self.options,
            postprocess=False,
            save_probabilities=True,
            restore_values=False,
            overwrite=True,
            ending="",
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

    def _averaging(self, registry: Registry) -> Averaging:
        document, options = self.models[0].model.document, self.options
        kind = LabelFiles(document.labels, document.label_ending, document.label_format)
        reading = format_of(kind, registry)
        if options.ending:
            kind = replace(kind, ending=options.ending, format=None)
        writing: ImageFormat = format_of(kind, registry)
        if ability(writing, WritesSegmentations) is not None:
            raise UsageError(
                f"An ensemble does not write files ending in '{kind.ending}'. Choose an ending of "
                "label maps, for example .nii.gz."
            )
        if options.restore_values:
            writing = with_original_values(writing, document)
        return Averaging(kind, reading, writing, self.clean, options.save_probabilities)

    def _record(self, kind: LabelFiles) -> PredictionRecord:
        options = self.options
        parts = []
        for trained in self.models:
            document = trained.model.document
            weights = weights_digests(trained.model.fold_folder(fold) for fold in trained.folds)
            predictor = document.components["predictor"].identity()
            chosen = predictor if options.predictor is None else options.predictor
            parts.append([document.digest(), weights, chosen, dict(options.settings)])
        state = None if self.decided is None else self.decided.state
        identity = files.digest([_MEMBERS, parts, state, options.restore_values])
        places = [str(trained.model.folder) for trained in self.models]
        return ensemble_record(places, identity, kind, self.decided)
