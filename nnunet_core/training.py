"""Train one fold, predict its validation cases, evaluate them."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_core import files, locks
from nnunet_core.cascade import append_one_hot
from nnunet_core.dataset import Dataset
from nnunet_core.errors import StorageError
from nnunet_core.evaluation import evaluate_case, mean_foreground_dice, summarise
from nnunet_core.interfaces import Preprocessor, Runtime, TrainedModel, Trainer, TrainingTask
from nnunet_core.method import TRAINING_KINDS, Method
from nnunet_core.models import FILE as MODEL_FILE
from nnunet_core.models import WEIGHTS, ModelDocument
from nnunet_core.plans import Configuration
from nnunet_core.prediction import to_segmentation
from nnunet_core.preprocess import on_device
from nnunet_core.processes import distributed_rank, in_several_processes
from nnunet_core.record import FILE as RUN_FILE
from nnunet_core.record import RunRecord, identity, library_versions
from nnunet_core.reporting import Reporter
from nnunet_core.settings import build
from nnunet_core.splits import Split
from nnunet_core.storage import LabelStore, PreparedStore

_LOOK_SECONDS = 1
VALIDATION = "validation"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Experiment:
    """One configuration of one method on one dataset: what its folds share.

    Attributes:
        dataset, method: What to train on, and how.
        configuration_name, configuration: From the plans.
        store: Prepared cases.
        folder: `results/<dataset>/<variant>/<configuration>`.
        runtime, seed: How to compute.
        report: Where progress goes.
        previous, previous_digest: Label maps of the previous stage, in a cascade, and what they were made from.
    """

    dataset: Dataset
    method: Method
    configuration_name: str
    configuration: Configuration
    store: PreparedStore
    folder: Path
    runtime: Runtime
    seed: int
    report: Reporter
    previous: LabelStore | None = None
    previous_digest: str = ""

    def fold_folder(self, fold: str) -> Path:
        """Return the folder of a fold."""
        return self.folder / f"fold_{fold}"

    def validation_file(self, fold: str, name: str) -> Path:
        """Return the predicted label map of a validation case."""
        return self.fold_folder(fold) / VALIDATION / f"{name}{self.dataset.label_ending}"

    def is_finished(self, fold: str, split: Split) -> bool:
        """Return whether a fold of these inputs is trained and validated."""
        return _is_finished(self.fold_folder(fold), self.inputs_digest(split))

    def mirror_axes(self) -> tuple[int, ...] | None:
        """Return the axes of the patch that training mirrors; None is all."""
        mirrored = getattr(self.method.build("augmentation"), "mirrored_axes", None)
        return None if mirrored is None else tuple(mirrored(self.configuration))

    def document(self) -> ModelDocument:
        """Describe the model that the folds make up."""
        return ModelDocument(
            dataset=self.dataset.name,
            variant=self.method.name,
            configuration_name=self.configuration_name,
            channels=self.dataset.channels,
            labels=self.dataset.labels,
            file_ending=self.dataset.ending,
            label_ending=self.dataset.label_ending,
            image_format=self.dataset.document.get("image_format"),
            label_format=self.dataset.document.get("label_format"),
            mirror_axes=self.mirror_axes(),
            configuration=self.configuration,
            components=self.method.records(self.configuration),
        )

    def inputs_digest(self, split: Split) -> str:
        """Identify everything that a fold's training depends on."""
        records = self.method.records(self.configuration)
        chosen = {kind: records[kind] for kind in TRAINING_KINDS}
        configuration = self.configuration.model_dump(mode="json", exclude={"notes"})
        return files.digest(
            [
                self.dataset.digest,
                configuration,
                identity(chosen),
                list(split.train),
                list(split.val),
                self.seed,
                self.previous_digest,
            ]
        )


def check_trainer(method: Method, runtime: Runtime) -> None:
    """Let the trainer refuse its settings, the device or the precision before cases are prepared (interfaces.Trainer).

    Raises:
        UsageError: It does.
    """
    check = getattr(method.build("trainer"), "check", None)
    if check is not None:
        check(runtime)


def train_fold(experiment: Experiment, fold: str, split: Split, restart: bool = False) -> dict[str, Any]:
    """Train and validate one fold, as far as that is missing; return its summary.

    A finished fold of equal inputs is left alone. One whose inputs changed is set aside, never overwritten. Of several
    processes that `torchrun` started, the first one validates and reports; the others return an empty summary.

    Args:
        experiment: What the folds share.
        fold: Number, or `all`.
        split: Its cases.
        restart: Set aside what is trained of the fold, and train it anew.

    Raises:
        NnunetError: Training or validation failed.
    """
    folder, report = experiment.fold_folder(fold), experiment.report
    if distributed_rank() > 0:
        inputs = experiment.inputs_digest(split)  # now: files of local components may change while they train
        experiment.method.build("trainer").train(_task(experiment, folder, split, lambda _: None))
        # The first process validates; if it fails, torchrun ends this one.
        while not _is_finished(folder, inputs):
            time.sleep(_LOOK_SECONDS)
        return {}
    with locks.held(experiment.folder / f".fold_{fold}{locks.NAME}", f"fold {fold}", report, wait=False):
        if restart and folder.exists():
            _set_aside(folder, report, "as asked")
        return _train_fold(experiment, fold, split, folder)


def _train_fold(experiment: Experiment, fold: str, split: Split, folder: Path) -> dict[str, Any]:
    report = experiment.report
    inputs = experiment.inputs_digest(split)
    record = _current_record(folder, inputs, report)
    if record is None:
        record = _new_record(experiment, fold, inputs)
    _write_model_document(experiment)
    hooks = experiment.method.registry.hooks
    if record.status != "running" and in_several_processes():
        _train(experiment, folder, split, record)  # the other processes wait to be told that there is nothing to do
    if record.status == "finished" and (folder / VALIDATION / SUMMARY).is_file():
        report.message(f"fold {fold} is trained and validated already: {folder}")
        return dict(files.read_json(folder / VALIDATION / SUMMARY))
    files.remove_leftovers(folder)
    if record.status == "running":
        record.write(folder / RUN_FILE)
        _warn(report, hooks.run_started(record, folder))
        computed = _train(experiment, folder, split, record)
        record = _advance(record, "trained", folder, computed)
    summary = validate_fold(experiment, folder, split)
    record = _advance(record, "finished", folder)
    mean = summary["results"]["mean"]
    _warn(report, hooks.run_finished(record, folder, mean))
    return summary


def _train(experiment: Experiment, folder: Path, split: Split, record: RunRecord) -> Mapping[str, str]:
    method, report = experiment.method, experiment.report

    def epoch_finished(metrics: Mapping[str, object]) -> None:
        _warn(report, method.registry.hooks.epoch_finished(record, folder, metrics))

    trainer: Trainer = method.build("trainer")
    computed = trainer.train(_task(experiment, folder, split, epoch_finished))
    if not (folder / WEIGHTS).is_file():
        raise StorageError(f"The trainer '{record.components['trainer'].reference}' ended without {folder / WEIGHTS}.")
    return computed


def _task(
    experiment: Experiment, folder: Path, split: Split, epoch_finished: Callable[[Mapping[str, object]], None]
) -> TrainingTask:
    method = experiment.method
    return TrainingTask(
        folder=folder,
        configuration=experiment.configuration,
        labels=experiment.dataset.labels,
        training=tuple(split.train),
        validation=tuple(split.val),
        store=experiment.store,
        network=method.build("network"),
        loss=method.build("loss"),
        augmentation=method.build("augmentation"),
        runtime=experiment.runtime,
        seed=experiment.seed,
        report=experiment.report,
        epoch_finished=epoch_finished,
        previous=experiment.previous,
    )


def validate_fold(experiment: Experiment, folder: Path, split: Split) -> dict[str, Any]:
    """Predict the validation cases of a trained fold, write and evaluate them; return the summary.

    Writes `validation/CASE.ext`, `validation/summary.json` and overlay pictures of the best, median and worst case.
    """
    dataset, method = experiment.dataset, experiment.method
    trainer: Trainer = method.build("trainer")
    preprocessor: Preprocessor = build(method.preprocessor(experiment.configuration))
    preprocessor = on_device(preprocessor, experiment.runtime.device)
    model = TrainedModel(
        folds=(folder,),
        configuration=experiment.configuration,
        labels=dataset.labels,
        network=method.build("network"),
        runtime=experiment.runtime,
        mirror_axes=experiment.mirror_axes(),
    )
    predict = trainer.predictor(model)
    target = folder / VALIDATION
    results = []
    with experiment.report.track("validate", len(split.val)) as tracker:
        for name in split.val:
            stored = experiment.store.open(name)
            images = stored.images[:]
            if experiment.previous is not None:
                images = append_one_hot(images, experiment.previous.open(name)[:], dataset.labels.foreground)
            probabilities = preprocessor.restore(predict(images), stored.geometry)
            segmentation = to_segmentation(probabilities, dataset.labels)
            path = target / f"{name}{dataset.label_ending}"
            dataset.label_format.write(path, segmentation, stored.geometry.original)
            reference_path = dataset.case(name).label
            if reference_path is None:
                raise StorageError(f"The validation case {name} has no label.")
            reference = dataset.load_label(reference_path)
            case = evaluate_case(segmentation, reference, dataset.labels)
            results.append({**case, "test": str(path), "reference": str(reference_path)})
            tracker.advance(1, name)
    summary = summarise(results, name=f"{experiment.method.name} {folder.name}", task=dataset.name)
    files.write_json(target / SUMMARY, summary)
    _draw_overlays(experiment, target, summary)
    return summary


def _draw_overlays(experiment: Experiment, target: Path, summary: Mapping[str, Any]) -> None:
    """Draw the best, the median and the worst validation case."""
    from nnunet_core.pictures import overlay_picture

    scored = [(mean_foreground_dice({"results": {"mean": case}}), case["test"]) for case in summary["results"]["all"]]
    ranked = [Path(path) for _, path in sorted(pair for pair in scored if not math.isnan(pair[0]))]
    if not ranked:
        return
    dataset = experiment.dataset
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
    for title, path in chosen.items():
        name = path.name.removesuffix(dataset.label_ending)
        case = dataset.load(dataset.case(name))
        prediction = dataset.label_format.read(path).array[0]
        overlay_picture(
            case.images[0],
            case.label,
            prediction,
            path=target / f"overlay_{title}.png",
            title=f"{title} validation case: {name}",
            spacing=case.geometry.spacing,
            labels=dataset.labels,
            direction=case.geometry.direction,
        )


def _is_finished(folder: Path, inputs: str) -> bool:
    if not (folder / RUN_FILE).is_file():
        return False
    record = RunRecord.read(folder / RUN_FILE)
    return record.status == "finished" and record.inputs_digest == inputs


def _current_record(folder: Path, inputs: str, report: Reporter) -> RunRecord | None:
    """Return the record of a fold whose inputs are the same; set aside a fold of other inputs."""
    if not (folder / RUN_FILE).is_file():
        return None
    record = RunRecord.read(folder / RUN_FILE)
    if record.inputs_digest == inputs:
        return record
    _set_aside(folder, report, "it was trained on other cases, plans, inputs or code, or with another seed")
    return None


def _set_aside(folder: Path, report: Reporter, why: str) -> None:
    """Rename the folder of a fold that is trained anew; nothing is overwritten."""
    count = 1
    while (aside := folder.with_name(f"stale_{folder.name}_{count}")).exists():
        count += 1
    folder.rename(aside)
    report.warning(f"{folder} is kept as {aside.name}, and the fold is trained anew: {why}.")


def _new_record(experiment: Experiment, fold: str, inputs: str) -> RunRecord:
    method = experiment.method
    active = [info for info in method.registry.plugins() if info.status == "active"]
    return RunRecord(
        status="running",
        dataset=experiment.dataset.name,
        dataset_digest=experiment.dataset.digest,
        variant=method.name,
        configuration=experiment.configuration_name,
        fold=fold,
        seed=experiment.seed,
        inputs_digest=inputs,
        model_digest=experiment.document().digest(),
        components=method.records(experiment.configuration),
        libraries=library_versions(),
        device=experiment.runtime.device,
        precision=experiment.runtime.precision,
        plugins={info.name: f"{info.distribution} {info.version}" for info in active},
        started=_now(),
    )


def _advance(record: RunRecord, status: str, folder: Path, computed: Mapping[str, str] | None = None) -> RunRecord:
    known = {name: value for name, value in (computed or {}).items() if name in ("device", "precision")}
    advanced = record.model_copy(update={"status": status, "finished": _now(), **known})
    advanced.write(folder / RUN_FILE)
    return advanced


def _write_model_document(experiment: Experiment) -> None:
    document = experiment.document()
    path = experiment.folder / MODEL_FILE
    if not path.is_file() or ModelDocument.read(path) != document:
        document.write(path)


def _warn(report: Reporter, warnings: list[str]) -> None:
    for warning in warnings:
        report.warning(warning)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
