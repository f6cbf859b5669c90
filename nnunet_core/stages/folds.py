"""Train one fold, predict its validation cases, evaluate them."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.contracts.trainer import Trainer, TrainingTask
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import Geometry, Image
from nnunet_core.data.splits import Split
from nnunet_core.errors import PluginError, StorageError, UsageError
from nnunet_core.registry.provenance import library_versions
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.runtime import files, locks
from nnunet_core.runtime.names import below
from nnunet_core.runtime.processes import distributed_rank, in_several_processes
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.case import CasePredictor, Keep
from nnunet_core.stages.evaluate import evaluate_case, summarise
from nnunet_core.stages.experiment import VALIDATION, Experiment, is_finished
from nnunet_core.stages.method import keep_variant
from nnunet_core.store.models import FILE as MODEL_FILE
from nnunet_core.store.models import WEIGHTS, ModelDocument, check_weights, weights_record
from nnunet_core.store.probabilities import probabilities_file, probabilities_writer
from nnunet_core.store.summaries import SUMMARY, Summary

_LOOK_SECONDS = 1
_OTHER_INPUTS = "was trained on other cases, plans, inputs or code, or with another seed"
#: What a trainer says of how it computed.
COMPUTED = ("device", "precision", "threads")


def train_fold(
    experiment: Experiment, fold: str, split: Split, restart: bool = False
) -> dict[str, Any]:
    """Train and validate one fold, as far as that is missing; return its summary.

    A finished fold of equal inputs is left alone; with another predictor it is validated anew, not
    trained. One whose inputs changed is set aside, never overwritten. Of several
    processes that `torchrun` started, the first one validates and reports; the others return an
    empty summary.

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
        # now: files of local components may change while they train
        inputs, predictor = experiment.inputs_digest(split), experiment.predictor()
        task = training_task(experiment, folder, split, lambda _: None)
        experiment.method.build("trainer").train(task)
        # The first process validates; if it fails, torchrun ends this one.
        while not is_finished(folder, inputs, predictor):
            time.sleep(_LOOK_SECONDS)
        return {}
    if not restart and (summary := _finished(experiment, fold, split, folder)) is not None:
        return summary
    lock, new = experiment.folder / f".fold_{fold}{locks.NAME}", not folder.exists()
    try:
        with locks.held(lock, f"fold {fold}", report, wait=False):
            if restart and folder.exists():
                _set_aside(folder, report, "as asked")
            return _train_fold(experiment, fold, split, folder)
    except (UsageError, PluginError):
        if new:  # what is asked for cannot be trained: nobody will go on with it
            _remove_untrained(experiment.folder, folder)
        raise


def _remove_untrained(model: Path, fold: Path) -> None:
    """Remove the folder of a fold, and that of its model if no other fold is in it."""
    shutil.rmtree(fold, ignore_errors=True)
    if any(model.glob("fold_*")) or any(model.glob(f".fold_*{locks.NAME}")):
        return
    (model / MODEL_FILE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # they hold something else
        model.rmdir()
        model.parent.rmdir()


def _finished(
    experiment: Experiment, fold: str, split: Split, folder: Path
) -> dict[str, Any] | None:
    """Return the summary of a fold that needs nothing; None if something of it is missing.

    Raises:
        StorageError: Its weights are damaged.
    """
    if not experiment.is_finished(fold, split) or not (folder / WEIGHTS).is_file():
        return None
    check_weights(folder)
    record = FoldRecord.read(folder / RUN_FILE)
    _warn_of_other_code(experiment, fold, record)
    if in_several_processes():  # the others wait to be told that there is nothing to do
        _train(experiment, folder, split, record)
    _write_model_document(experiment)
    experiment.report.message(f"fold {fold} is trained and validated already: {folder}")
    return Summary.read(folder / VALIDATION / SUMMARY).content()


def _warn_of_other_code(experiment: Experiment, fold: str, record: FoldRecord) -> None:
    """Say which components' code changed since a fold was trained."""
    now = experiment.method.records(experiment.configuration)
    if changed := record.changed_code(now):
        experiment.report.warning(
            f"fold {fold} was trained with other code: changed since then: {', '.join(changed)}. "
            "What is trained stays; to train it with the code of today: nnunet train ... --restart"
        )


def _train_fold(experiment: Experiment, fold: str, split: Split, folder: Path) -> dict[str, Any]:
    report = experiment.report
    inputs, predictor = experiment.inputs_digest(split), experiment.predictor()
    record = _current_record(folder, inputs, report)
    record = record or _new_record(experiment, fold, split, inputs)
    _warn_of_other_code(experiment, fold, record)
    _write_model_document(experiment)
    if record.status != "running" and in_several_processes():
        # the other processes wait to be told that there is nothing to do
        _train(experiment, folder, split, record)
    files.remove_leftovers(folder)
    known: Mapping[str, object] = {}
    if record.status == "running":
        record.write(folder / RUN_FILE)
        _warn(report, experiment.method.registry.hooks.run_started(record, folder))
        known = _train(experiment, folder, split, record)
    elif record.is_validated(predictor):
        report.warning(f"fold {fold} is validated anew: {experiment.validation(fold, split)}.")
    elif record.status == "finished":
        report.message(f"fold {fold} is validated anew, with the predictor '{predictor.reference}'")
    return _validate(experiment, folder, split, record, known)


def _validate(
    experiment: Experiment,
    folder: Path,
    split: Split,
    record: FoldRecord,
    known: Mapping[str, object],
) -> dict[str, Any]:
    """Make the validation of a trained fold; from now on it is that of this predictor.

    Args:
        experiment: What the folds share.
        folder: Of the fold.
        split: Its cases.
        record: Its run.json.
        known: What the training added to that.
    """
    hooks, report = experiment.method.registry.hooks, experiment.report
    # before the first case: label maps of two predictors never count as one validation
    components = {**record.components, "predictor": experiment.predictor()}
    record = _advance(record, "trained", folder, components=components, **known)
    start = time.monotonic()
    summary = predict_validation(experiment, folder, split, folder / VALIDATION)
    seconds = (time.monotonic() - start) / max(1, len(split.val))
    _warn(report, hooks.fold_validated(record, folder, experiment.dataset, summary))
    record = _advance(record, "finished", folder, seconds_per_case=round(seconds, 3))
    _warn(report, hooks.run_finished(record, folder, summary["results"]["mean"]))
    return summary


def validate_fold(
    experiment: Experiment, fold: str, split: Split, overwrite: bool = False
) -> tuple[dict[str, Any], Path]:
    """Validate a trained fold; trains nothing.

    Its own validation is completed, or made anew, with the predictor that it is of. Another
    predictor, or one with other settings, writes beside it: `validation_NAME-DIGEST`.

    Args:
        experiment: What the folds share.
        fold: Number, or `all`.
        split: Its cases.
        overwrite: Make anew what is complete; another predictor's validation becomes the fold's.

    Returns:
        The summary, and the folder of the validation.

    Raises:
        UsageError: The fold is not trained, or was trained with something else than the experiment.
        NnunetError: The validation failed.
    """
    folder, predictor = experiment.fold_folder(fold), experiment.predictor()
    record = _trained_record(experiment, fold, split)
    lock = experiment.folder / f".fold_{fold}{locks.NAME}"
    with locks.held(lock, f"fold {fold}", experiment.report, wait=False):
        files.remove_leftovers(folder)
        mine = record.components["predictor"].identity() == predictor.identity()
        own = mine or overwrite or record.status == "trained"
        name = VALIDATION if own else f"{VALIDATION}_{_named(predictor)}"
        if not own:
            experiment.report.message(
                f"fold {fold} was validated with {record.components['predictor'].described()}; "
                f"the validation with {predictor.described()} goes to {folder / name}. "
                "--overwrite makes it the validation of the fold."
            )
        found = experiment.validation(fold, split, name)
        complete = isinstance(found, Summary) and not (own and record.status == "trained")
        if isinstance(found, Summary) and complete and not overwrite:
            experiment.report.message(f"fold {fold} is validated already: {folder / name}")
            return found.content(), folder / name
        if isinstance(found, str) and record.status == "finished" and own:
            experiment.report.message(f"fold {fold} is validated anew: {found}")
        if own:
            _write_model_document(experiment)
            return _validate(experiment, folder, split, record, {}), folder / name
        return predict_validation(experiment, folder, split, folder / name), folder / name


def check_trained(experiment_folder: Path, folds: Iterable[str], training: str) -> None:
    """Raise UsageError where folds of a configuration are not trained.

    Args:
        experiment_folder: Of the configuration.
        folds: Numbers, or `all`.
        training: The command that trains them, without the folds.
    """
    missing = [name for name in folds if not _is_trained(experiment_folder / f"fold_{name}")]
    if missing:
        raise UsageError(
            f"Fold {', '.join(missing)} of {experiment_folder} is not trained; 'nnunet validate' "
            f"trains nothing. Train with: {training} --folds {','.join(missing)}"
        )


def _is_trained(folder: Path) -> bool:
    path = folder / RUN_FILE
    return path.is_file() and FoldRecord.read(path).status != "running"


def _trained_record(experiment: Experiment, fold: str, split: Split) -> FoldRecord:
    """Return the record of a trained fold whose inputs are those of the experiment.

    Raises:
        UsageError: They are others.
        StorageError: Its weights are damaged.
    """
    folder = experiment.fold_folder(fold)
    record = FoldRecord.read(folder / RUN_FILE)
    if record.inputs_digest != experiment.inputs_digest(split):
        raise UsageError(
            f"Fold {fold} of {experiment.folder} {_OTHER_INPUTS}, so its validation would be of "
            "something else. Use the data and the options that it was trained with ('nnunet "
            "models show' says which), or train it anew with 'nnunet train'."
        )
    check_weights(folder)
    return record


def _named(predictor: ComponentRecord) -> str:
    """Return a name for a predictor with its settings, as a part of a folder's name."""
    name = predictor.reference.rpartition("/")[2].replace(":", ".")
    return f"{name}-{files.digest(predictor.identity())[:8]}"


def _train(
    experiment: Experiment, folder: Path, split: Split, record: FoldRecord
) -> dict[str, object]:
    """Train a fold; return what its record says of that: what computed it, as the trainer resolved
    it, and `weights`.
    """
    method, report = experiment.method, experiment.report

    def epoch_finished(metrics: Mapping[str, object]) -> None:
        _warn(report, method.registry.hooks.epoch_finished(record, folder, metrics))

    trainer: Trainer = method.build("trainer")
    computed = trainer.train(training_task(experiment, folder, split, epoch_finished))
    if not (folder / WEIGHTS).is_file():
        raise StorageError(
            f"The trainer '{record.components['trainer'].reference}' ended without "
            f"{folder / WEIGHTS}."
        )
    known = {name: computed[name] for name in COMPUTED if name in computed}
    return {**known, "weights": weights_record(folder)}


def training_task(
    experiment: Experiment,
    folder: Path,
    split: Split,
    epoch_finished: Callable[[Mapping[str, object]], None],
) -> TrainingTask:
    """Return what the trainer needs to train a fold in a folder."""
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
        initial=method.initial,
    )


def predict_validation(
    experiment: Experiment, folder: Path, split: Split, target: Path
) -> dict[str, Any]:
    """Predict the validation cases of a trained fold, write and evaluate them; return the summary.

    Args:
        experiment: What the folds share; says whether probabilities are written, too.
        folder: Of the fold.
        split: Its cases.
        target: Where label maps `CASE.ext` and `summary.json` go.
    """
    dataset, method = experiment.dataset, experiment.method
    model = TrainedModel(
        folds=(folder,),
        configuration=experiment.configuration,
        labels=dataset.labels,
        network=method.build("network"),
        runtime=experiment.runtime,
        mirror_axes=experiment.mirror_axes(),
    )
    preprocessor = built(method.preprocessor(experiment.configuration))
    predict = CasePredictor.open(model, method.build("predictor"), preprocessor)
    results = []
    (target / SUMMARY).unlink(missing_ok=True)  # it is of what is replaced now
    with experiment.report.track("validate", len(split.val)) as tracker:
        for name in split.val:
            stored = experiment.store.open(name)
            previous = None if experiment.previous is None else experiment.previous.open(name)[:]
            path = below(target, f"{name}{dataset.label_ending}")
            with _kept(experiment, path, stored.geometry.original) as keep:
                segmentation = predict.segment(stored.images[:], stored.geometry, previous, keep)
            dataset.label_format.write(path, segmentation, stored.geometry.original)
            results.append(_evaluated(dataset, name, path, segmentation, stored.geometry.original))
            tracker.advance(1, name)
    summary = summarise(results, name=f"{experiment.method.name} {folder.name}", task=dataset.name)
    Summary.model_validate(summary).write(target / SUMMARY)
    return summary


@contextlib.contextmanager
def _kept(experiment: Experiment, path: Path, geometry: Geometry) -> Iterator[Keep | None]:
    """Keep the probabilities of a case beside its label file, if they are asked for; those of
    another predictor go.
    """
    probabilities = probabilities_file(path)
    if experiment.save_probabilities:
        shape = (experiment.dataset.labels.outputs, *geometry.shape)
        with probabilities_writer(probabilities, shape) as keep:
            yield keep
    else:
        probabilities.unlink(missing_ok=True)
        yield None


def _evaluated(
    dataset: Dataset, name: str, path: Path, segmentation: np.ndarray, geometry: Geometry
) -> dict[str, Any]:
    """Return the entry of a validation case in the summary."""
    case = dataset.case(name)
    if case.label is None:
        raise StorageError(f"The validation case {name} has no label.")
    predicted = Image(segmentation[None], geometry)
    reference = dataset.load_label(case.label, predicted, case.images[0])
    metrics = evaluate_case(segmentation, reference, dataset.labels)
    return {**metrics, "test": str(path), "reference": str(case.label)}


def _current_record(folder: Path, inputs: str, report: Reporter) -> FoldRecord | None:
    """Return the record of a fold whose inputs are the same; set aside one of other inputs, or
    without weights.

    Raises:
        StorageError: The weights are damaged.
    """
    if not (folder / RUN_FILE).is_file():
        return None
    record = FoldRecord.read(folder / RUN_FILE)
    if record.inputs_digest != inputs:
        why = f"it {_OTHER_INPUTS}"
    elif record.status != "running" and not (folder / WEIGHTS).is_file():
        why = f"its {WEIGHTS} is missing"
    else:
        check_weights(folder)
        return record
    _set_aside(folder, report, why)
    return None


def _set_aside(folder: Path, report: Reporter, why: str) -> None:
    """Rename the folder of a fold that is trained anew; nothing is overwritten."""
    count = 1
    while (aside := folder.with_name(f"stale_{folder.name}_{count}")).exists():
        count += 1
    folder.rename(aside)
    report.warning(f"{folder} is kept as {aside.name}, and the fold is trained anew: {why}.")


def _new_record(experiment: Experiment, fold: str, split: Split, inputs: str) -> FoldRecord:
    method = experiment.method
    active = [info for info in method.registry.plugins() if info.status == "active"]
    return FoldRecord(
        status="running",
        dataset=experiment.dataset.name,
        dataset_digest=experiment.dataset.digest,
        variant=method.name,
        configuration=experiment.configuration_name,
        fold=fold,
        seed=experiment.seed,
        inputs_digest=inputs,
        split_digest=files.digest([list(split.train), list(split.val)]),
        model_digest=experiment.document().digest(),
        components=method.records(experiment.configuration),
        initial=method.initial,
        libraries=library_versions(),
        device=experiment.runtime.device,
        precision=experiment.runtime.precision,
        plugins={info.name: f"{info.distribution} {info.version}" for info in active},
        started=_now(),
    )


def _advance(record: FoldRecord, status: str, folder: Path, **known: object) -> FoldRecord:
    advanced = record.model_copy(update={"status": status, "finished": _now(), **known})
    advanced.write(folder / RUN_FILE)
    return advanced


def _write_model_document(experiment: Experiment) -> None:
    document = experiment.document()
    path = experiment.folder / MODEL_FILE
    try:
        same = path.is_file() and ModelDocument.read(path) == document
    except StorageError:
        same = False  # damaged: it is made of what this run knows
    if not same:
        document.write(path)
    keep_variant(experiment.method, experiment.folder.parent)


def _warn(report: Reporter, warnings: list[str]) -> None:
    for warning in warnings:
        report.warning(warning)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
