"""Predict images with a trained model: those of a folder, files, or one case into one file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nnunet_core.contracts.abilities import WritesSegmentations, ability
from nnunet_core.data.dataset import CaseFiles, Dataset
from nnunet_core.data.images import Geometry, ImageFormat, ending_of
from nnunet_core.errors import NnunetError, StorageError, UsageError, counted
from nnunet_core.prediction.inputs import dataset_of, find_inputs
from nnunet_core.prediction.model import ModelOptions, ModelPredictor, Parts, Prepared
from nnunet_core.prediction.uncertainty import entropy
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.overlap import overlapped
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.case import Keep
from nnunet_core.stages.dataset import alpha_message, remarks
from nnunet_core.stages.formats import (
    find_format,
    known_endings,
    meaning_of,
    with_original_values,
    write_label,
)
from nnunet_core.store import predictions
from nnunet_core.store.calibration import stored_temperature, tempered
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.predictions import MAPS, Beside, Part, PredictionRecord, claim, map_file
from nnunet_core.store.probabilities import probabilities_file, probabilities_writer

#: Of images beside label maps.
MAP_ENDING = ".nii.gz"


@dataclass(frozen=True)
class PredictionOptions(ModelOptions):
    """How to predict, and what to write.

    Attributes:
        save_probabilities: Also write `CASE.b2nd`, see `store.probabilities`.
        restore_values: Write label values as they were before `dataset convert --renumber`.
        overwrite: Replace predictions of another model, and foreign files in their places.
        ending: Of the label files; empty is that of the model.
        part: Which of the cases.
        entropy: Also write `entropy/CASE.ext`, see `uncertainty.entropy`.
        disagreement: Also write `disagreement/CASE.ext`, see `ModelPredictor.disagreement`.
        calibrated: Divide logarithms of probabilities by the temperature of the model; label maps
            stay the same.
    """

    save_probabilities: bool = False
    restore_values: bool = False
    overwrite: bool = False
    ending: str = ""
    part: Part = field(default_factory=Part)
    entropy: bool = False
    disagreement: bool = False
    calibrated: bool = False

    @property
    def beside(self) -> Beside:
        """What is written beside the label maps."""
        maps = tuple(name for name in MAPS if getattr(self, name))
        return Beside(self.save_probabilities, maps)


def predict_folder(
    model: Model,
    source: Path | Sequence[Path],
    output: Path,
    registry: Registry,
    options: PredictionOptions | None = None,
    report: Reporter | None = None,
) -> list[Path]:
    """Predict the cases of a folder of images, or files (see `inputs.find_inputs`), into a folder;
    return the label files.

    A rerun predicts what is missing. A case that fails does not stop the others. While a case is in
    the networks, the next is read and prepared and the last one is written.

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
    places = [source] if isinstance(source, Path) else list(source)
    for place in places:
        refuse_own_input(place, output)
    own = dataset_of(model, places[0], registry)  # formats first: they, too, are named by strangers
    parts = Parts.find(model, registry, options, report)
    dataset, cases = inputs_of(own, model, places, registry, options, report)
    outputs = {c.name: below(output, f"{c.name}{dataset.label_ending}") for c in cases}
    keep_images(cases, outputs)
    record, everything = _record(parts, options), list(outputs.values())
    claimed = claim(output, record, everything, options.overwrite)
    mine = options.part.of(cases)
    written = [outputs[case.name] for case in mine]
    if claimed.is_done(options.beside):
        return written
    # before anything is written: a request that cannot be right leaves no folder
    needed = any(claimed.needs(path, options.beside) for path in written)
    predictor = _open(parts, options, report) if needed else None
    maps = find_format(MAP_ENDING, registry)
    shared = (record, everything, options.overwrite, options.part, report)
    with predictions.writing(output, *shared) as claimed:
        todo = [c for c in mine if claimed.needs(outputs[c.name], options.beside)]
        if todo:
            predictor = predictor or _open(parts, options, report)
            temperature = _temperature(parts, options)
            work = _Work(predictor, dataset, outputs, claimed.stale, options, maps, temperature)
            _predict_cases(work, todo, len(mine), report)
        predictions.finish(claimed, written, options.beside, report)
    return written


def predict_file(
    model: Model,
    source: Path | Sequence[Path],
    output: Path,
    registry: Registry,
    options: PredictionOptions | None = None,
    report: Reporter | None = None,
) -> Path:
    """Predict one case into one file, whose ending decides its format; return the file. A rerun
    leaves it as it is.

    Raises:
        UsageError: There are several cases, or something else is in the place of the file and is
            not to be overwritten.
        NnunetError: See `predict_folder`.
    """
    options, report = options or PredictionOptions(), report or Silence()
    options = replace(options, ending=ending_of(output.name, known_endings(registry)))
    places = [source] if isinstance(source, Path) else list(source)
    own = dataset_of(model, places[0], registry)
    parts = Parts.find(model, registry, options, report)
    dataset, cases = inputs_of(own, model, places, registry, options, report)
    if len(cases) > 1 or options.part != Part():
        raise UsageError(one_file_only(output, len(cases)))
    outputs = {cases[0].name: output}
    keep_images(cases, outputs)
    identity = file_identity(_record(parts, options).identity, cases[0])
    if not options.overwrite and predictions.is_made(output, identity, options.beside, report):
        return output
    predictor, maps = _open(parts, options, report), find_format(MAP_ENDING, registry)
    work = _Work(predictor, dataset, outputs, [output], options, maps, _temperature(parts, options))
    _predict_cases(work, cases, 1, report)
    predictions.FileRecord.note(output, identity)
    return output


def file_identity(identity: str, case: CaseFiles) -> str:
    """Return what a prediction of one case into one file depends on: also the content of its
    images, since the name of the file does not say which they are.
    """
    return files.digest([identity, files.Digests().of(case.images)])


def one_file_only(output: Path, cases: int) -> str:
    """Say that one output file takes one case, and no part of several."""
    return (
        f"{output} is one file; there are {counted(cases, 'case')} to predict. Give a folder as "
        "OUTPUT, and --part only with one."
    )


def _open(parts: Parts, options: PredictionOptions, report: Reporter) -> ModelPredictor:
    if options.disagreement and len(parts.folds) < 2:
        raise UsageError(
            f"--disagreement is that of several folds; {parts.folds[0].name} is the only one that "
            "predicts. Train more folds, or leave it out."
        )
    return ModelPredictor.open(parts, report, members=options.disagreement)


def is_file_output(output: Path, registry: Registry) -> bool:
    """Return whether an output is one label file, by its ending, and not a folder."""
    return not output.is_dir() and bool(ending_of(output.name, known_endings(registry)))


def inputs_of(
    own: Dataset,
    model: Model,
    places: Sequence[Path],
    registry: Registry,
    options: PredictionOptions,
    report: Reporter,
) -> tuple[Dataset, tuple[CaseFiles, ...]]:
    """Return the cases, and the dataset that reads them and writes their label files; `own` is that
    of the model.
    """
    dataset, cases = find_inputs(places, own, registry)
    if options.ending:
        label_format = find_format(options.ending, registry, source="the output")
        dataset = replace(dataset, label_ending=options.ending, label_format=label_format)
        refers = ability(label_format, WritesSegmentations) is not None
        if refers and type(dataset.image_format) is not type(label_format):
            raise UsageError(
                f"Label files {options.ending} say which image they are of, and need images of "
                f"the same format; these end in {dataset.ending}. Choose another ending."
            )
    if options.restore_values:
        restoring = with_original_values(dataset.label_format, model.document)
        dataset = replace(dataset, label_format=restoring)
    if cases[0].images[0].parent == places[0]:  # a folder was given
        for message in remarks(dataset, cases):
            report.warning(message)
    elif alpha := alpha_message(dataset, cases):
        report.warning(alpha)
    return dataset, cases


def keep_images(cases: Sequence[CaseFiles], outputs: Mapping[str, Path]) -> None:
    """Raise UsageError where a prediction would take the place of its image."""
    for case in cases:
        if outputs[case.name].resolve() in [path.resolve() for path in case.images]:
            raise UsageError(
                f"The prediction of {case.name} would replace its image "
                f"{outputs[case.name]}. Choose another output folder."
            )


@dataclass
class _Found:
    """What was predicted of a case.

    Attributes:
        geometry: Of the image.
        segmentation: Label map (Z, Y, X), as yet uncleaned.
        maps: {folder: float32 (Z, Y, X)} of images beside it.
    """

    geometry: Geometry
    segmentation: np.ndarray = field(init=False)
    maps: dict[str, np.ndarray] = field(default_factory=dict)

    def add_entropy(self, regions: bool) -> Keep:
        """Add a map that is filled by what is returned."""
        values = self.maps["entropy"] = np.zeros(self.geometry.shape, np.float32)

        def keep(start: int, slab: np.ndarray) -> None:
            values[start : start + slab.shape[1]] = entropy(slab, regions)

        return keep


def _keep_all(keepers: Sequence[Keep], temperature: float | None, regions: bool) -> Keep | None:
    def keep(start: int, slab: np.ndarray) -> None:
        if temperature is not None:
            slab = tempered(slab, temperature, regions)
        for each in keepers:
            each(start, slab)

    return keep if keepers else None


@dataclass(frozen=True)
class _Work:
    """What is done with each case.

    Attributes:
        predictor: The model.
        dataset: Reads images, writes label maps.
        outputs: {case: its label file}.
        stale: Label files of somebody else that are replaced.
        options: What to write.
        map_format: Writes images beside label maps.
        temperature: Of the probabilities, or None.
    """

    predictor: ModelPredictor
    dataset: Dataset
    outputs: Mapping[str, Path]
    stale: Container[Path]
    options: PredictionOptions
    map_format: ImageFormat
    temperature: float | None

    def prepare(self, case: CaseFiles) -> Prepared:
        """Read and prepare a case."""
        return self.predictor.prepare(self.dataset.load(case))

    def predict(self, prepared: Prepared) -> _Found:
        """Apply the networks; the probabilities are written meanwhile, if they are asked for."""
        labels = self.predictor.case.labels
        shape, regions = (labels.outputs, *prepared.geometry.shape), bool(labels.regions)
        path = probabilities_file(self.outputs[prepared.case.name])
        found = _Found(prepared.geometry)
        keepers: list[Keep] = []
        with contextlib.ExitStack() as stack:
            if self.options.save_probabilities:
                keepers.append(stack.enter_context(probabilities_writer(path, shape)))
            if self.options.entropy:
                keepers.append(found.add_entropy(regions))
            keep = _keep_all(keepers, self.temperature, regions)
            found.segmentation = self.predictor.segment(prepared, keep)
        if self.options.disagreement:
            found.maps["disagreement"] = self.predictor.disagreement(prepared, found.segmentation)
        return found

    def write(self, case: CaseFiles, found: _Found) -> Geometry:
        """Clean a label map, and write it and the images beside it; return its geometry."""
        output, geometry = self.outputs[case.name], found.geometry
        for name, values in found.maps.items():
            self.map_format.write(map_file(output, name), values, geometry)
        if output in self.stale:
            self.options.beside.remove_others(output)
        segmentation = self.predictor.clean(found.segmentation, geometry)
        meaning = meaning_of(self.predictor.model.document, case)
        write_label(self.dataset.label_format, output, segmentation, geometry, meaning)
        return geometry


def _predict_cases(work: _Work, todo: Sequence[CaseFiles], total: int, report: Reporter) -> None:
    """Predict cases of an output that nobody else writes to.

    Raises:
        StorageError: An output cannot be written; nothing after it is predicted.
        NnunetError: Cases failed, after the others are written.
    """
    failures, started = [], time.monotonic()
    outcomes = overlapped(todo, work.prepare, work.predict, work.write)
    with (
        contextlib.closing(outcomes),
        report.track("predict", total, total - len(todo)) as tracker,
    ):
        for number, (case, outcome) in enumerate(outcomes, start=1):
            try:
                for note in outcome.result().notes:
                    report.warning(note)
            except StorageError:
                raise
            except NnunetError as error:
                failures.append(f"{case.name}: {error}")
            seconds = (time.monotonic() - started) / number
            tracker.advance(1, f"{case.name}  {seconds:.1f} s per case")
    if failures:
        raise NnunetError(
            f"{len(failures)} of {counted(total, 'case')} failed:\n" + "\n".join(failures)
        )


def refuse_own_input(source: Path, output: Path) -> None:
    """Raise UsageError where predictions would be written among the images that they are of."""
    if source.resolve() == output.resolve():
        raise UsageError(
            f"The predictions cannot be written to {output}, the folder of their own images: the "
            "next prediction would take them for images. Choose another output folder."
        )


def _temperature(parts: Parts, options: PredictionOptions) -> float | None:
    if not options.calibrated:
        return None
    return stored_temperature(parts.model, weights_digests(parts.folds))


def _record(parts: Parts, options: PredictionOptions) -> PredictionRecord:
    """Return the record of an output folder."""
    document = parts.model.document
    originals = document.original_values if options.restore_values else {}
    temperature = _temperature(parts, options)
    return PredictionRecord(
        model=str(parts.model.folder),
        folds=tuple(fold.name for fold in parts.folds),
        identity=files.digest([parts.identity(), sorted(originals.items()), temperature]),
        predictor=parts.predictor,
        postprocess=options.postprocess,
        labels=document.labels,
        label_ending=options.ending or document.label_ending,
        label_format=None if options.ending else document.label_format,
        temperature=temperature,
        tolerances=document.tolerances,
    )
