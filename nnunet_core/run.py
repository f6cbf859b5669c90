"""The main path: fingerprint, plan, preprocess, train, select, predict, evaluate."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.plans import Plans
from nnunet_core.data.splits import Split, load_splits
from nnunet_core.errors import NnunetError, UsageError
from nnunet_core.prediction.find_best import Choice, Selection, select
from nnunet_core.prediction.infer import predict_inference
from nnunet_core.prediction.predict import PredictionOptions, predict_folder, refuse_own_input
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.needs import check_needs
from nnunet_core.registry.variants import DEFAULT
from nnunet_core.runtime.names import below
from nnunet_core.runtime.processes import distributed_rank, in_several_processes
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages import cascade
from nnunet_core.stages.dataset import open_dataset, remarks
from nnunet_core.stages.evaluate import evaluate_files, mean_foreground_dice
from nnunet_core.stages.experiment import Experiment, check_runtime
from nnunet_core.stages.folds import check_trained, train_fold, validate_fold
from nnunet_core.stages.method import Method, choose, save_variant, starting_from
from nnunet_core.stages.plan import make_plans
from nnunet_core.stages.prepare import prepare
from nnunet_core.stages.select import Candidate, Trained, consolidate, dice_by_name
from nnunet_core.store.inference import FILE
from nnunet_core.store.models import Model
from nnunet_core.store.origins import command
from nnunet_core.store.prepared import PreparedStore
from nnunet_core.store.workspace import Workspace


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        dataset: Path, id or name.
        variant: Named bundle or TOML file to start from; several are composed from left to right.
        save_variant: A TOML file to write that holds the variants with the user's changes.
        choices: {kind: reference} that replace the variant's components.
        settings: {kind: {field: value}}.
        configurations: Names from the plans; empty means `3d_fullres`, or `2d` when every case is a
            single slice.
        folds: Numbers, or `all`; empty means every stored fold, five unless the dataset has its
            own.
        runtime, seed: How to compute.
        processes, memory: Processes that read and prepare cases, and the bytes that they may need
            together (None: 80 % of what is free).
        predict, output: A folder of images to predict with the best configuration, and where to.
        options: How to predict.
        pretrained, freeze: A model to start from, and parts of its network that stay as they are.
        save_probabilities: Keep the probabilities of validation cases beside their label maps.
        ensembles: Of several configurations, also compare all pairs; it keeps these probabilities.
    """

    dataset: str
    variant: str | tuple[str, ...] = DEFAULT
    choices: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    configurations: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    runtime: Runtime = field(default_factory=Runtime)
    seed: int = 12345
    processes: int = 2
    memory: int | None = None
    predict: Path | None = None
    output: Path | None = None
    options: PredictionOptions = field(default_factory=PredictionOptions)
    pretrained: Path | None = None
    freeze: tuple[str, ...] = ()
    save_probabilities: bool = False
    ensembles: bool = True
    save_variant: Path | None = None


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    Attributes:
        dataset, method, plans_path: What was run.
        selection: A result per configuration and, of several, per pair of them; the best predicts.
        predictions: Predicted files; empty without `predict`.
        prediction_dice: {label name: Dice} of the predictions where reference labels lie beside the
            images.
        prediction_mean_dice: Mean over these; NaN when nothing could be scored.
    """

    dataset: Dataset
    method: Method
    plans_path: Path
    selection: Selection
    predictions: tuple[Path, ...] = ()
    prediction_dice: Mapping[str, float] = field(default_factory=dict)
    prediction_mean_dice: float = math.nan

    @property
    def best(self) -> Candidate:
        """What predicts."""
        return self.selection.best


@dataclass(frozen=True)
class Pipeline:
    """One method on one dataset, step by step: each step first does what is missing of those before
    it.

    Attributes:
        request, workspace, report: As given to `opened`.
        method, dataset: What the request names.
        workers: Processes that read and prepare cases.
    """

    request: Request
    workspace: Workspace
    report: Reporter
    method: Method
    dataset: Dataset
    workers: Workers

    @functools.cached_property
    def plans(self) -> tuple[Plans, Path]:
        """The plans, and their file."""
        return make_plans(self.dataset, self.method, self.workspace, self.workers, self.report)

    def configurations(self) -> tuple[str, ...]:
        """Return what is asked for, or `2d` for single-slice data and `3d_fullres` otherwise, or
        the only one that there is.
        """
        found = self.plans[0].configurations
        flat = any(c.median_shape[0] == 1 for c in found.values())
        preferred = "2d" if flat else "3d_fullres"
        usual = (preferred,) if preferred in found else tuple(found)[:1]
        return tuple(dict.fromkeys(self.request.configurations)) or usual

    def prepared(self, name: str, device: str = "cpu", verify: bool = False) -> PreparedStore:
        """Return the prepared cases of a configuration; see `prepare.prepare`."""
        plans, space, report = self.plans[0], self.workspace, self.report
        configuration = plans.configuration(name)
        return prepare(
            self.dataset, configuration, self.method, space, self.workers, report, device, verify
        )

    def splits(self) -> dict[str, Split]:
        """Return the folds that are asked for, after a look whether they can be trained at all."""
        self.report.message(f"method: {self.method.name}")  # also finds a wrong setting
        check_runtime(self.method, self.request.runtime)
        path = self.workspace.splits(self.dataset.name)
        return load_splits(self.dataset.names, self.request.folds, path, self.report)

    def train(
        self, splits: Mapping[str, Split], restart: bool = False, train_previous: bool = False
    ) -> Iterator[tuple[Experiment, Iterator[tuple[str, dict[str, Any]]]]]:
        """Yield each configuration with its (fold, summary of the validation); a fold is trained
        when it is asked for.

        Args:
            splits: The folds.
            restart: Train them anew.
            train_previous: Train what is missing of the stage before a cascade; otherwise it must
                be trained.
        """
        for name in self.configurations():
            experiment = self.experiment(name, train_previous)
            yield experiment, self._folds(experiment, splits, restart)

    def validate(
        self, splits: Mapping[str, Split], overwrite: bool = False
    ) -> Iterator[tuple[Experiment, str, dict[str, Any], Path]]:
        """Validate trained folds, see `folds.validate_fold`; yield (configuration, fold, summary,
        folder of the validation). Nothing is trained.

        Raises:
            UsageError: A fold is not trained; nothing was validated.
        """
        names = self.configurations()
        for name in names:
            options = self.method.options(self.plans[0].configuration(name))
            words = [*options, "--configuration", name]
            training = command("train", self.dataset.name, words)
            check_trained(self._folder(name), splits, training)
        for name in names:
            experiment = self.experiment(name)
            self.workers.close()
            for fold, split in splits.items():
                summary, folder = validate_fold(experiment, fold, split, overwrite)
                yield experiment, fold, summary, folder

    def _folder(self, name: str) -> Path:
        return below(self.workspace.results, self.dataset.name, self.method.name, name)

    def experiment(self, name: str, train_previous: bool = False) -> Experiment:
        """Return what the folds of a configuration share; nothing of it is trained yet.

        Args:
            name: Of the configuration.
            train_previous: Train what is missing of the stage before a cascade; otherwise it must
                be trained.
        """
        found = self._experiment(name)
        if found.configuration.previous is None:
            return found
        return self._connected(found, train_previous)

    def _experiment(self, name: str) -> Experiment:
        return Experiment(
            dataset=self.dataset,
            method=self.method,
            configuration_name=name,
            configuration=self.plans[0].configuration(name),
            store=self.prepared(name),
            folder=self._folder(name),
            runtime=self.request.runtime,
            seed=self.request.seed,
            report=self.report,
            save_probabilities=self.request.save_probabilities,
        )

    def consolidated(
        self, experiment: Experiment, folds: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Candidate:
        """Train and validate what is missing of folds, and join them."""
        names = tuple(fold for fold, _ in folds)
        model = Model.open(experiment.folder, trusted=True)  # this run has just written it
        registry = self.method.registry
        return consolidate(Trained(model, names), self.dataset, registry, self.report)

    def _connected(self, experiment: Experiment, train_previous: bool) -> Experiment:
        """Connect a cascade with the predictions of the stage before it."""
        stage = self._experiment(str(experiment.configuration.previous))
        # its label maps are all that the cascade needs
        stage = replace(stage, save_probabilities=False)
        path = self.workspace.splits(self.dataset.name)
        splits = cascade.stage_splits(self.dataset.names, self.request.folds, path)
        if train_previous:
            self.consolidated(stage, self._folds(stage, splits))
        return cascade.connect(experiment, stage, splits)

    def _folds(
        self, experiment: Experiment, splits: Mapping[str, Split], restart: bool = False
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        self.workers.close()  # a training needs their memory
        for fold, split in splits.items():
            yield fold, train_fold(experiment, fold, split, restart)


@contextlib.contextmanager
def opened(
    request: Request, registry: Registry, workspace: Workspace, report: Reporter
) -> Iterator[Pipeline]:
    """Resolve what a request names, and yield the steps of its run.

    Raises:
        UsageError: The request cannot be right.
    """
    with Workers(request.processes, request.memory, report) as workers:
        method = _method(request, registry, report)
        dataset = open_dataset(request.dataset, workspace.raw, registry, workspace.preprocessed)
        for message in remarks(dataset, dataset.training):
            report.warning(message)
        yield Pipeline(request, workspace, report, method, dataset, workers)


def _method(request: Request, registry: Registry, report: Reporter) -> Method:
    """Resolve the method of a request, and say what it is made of.

    Raises:
        PluginError: A component needs what is not installed; the message names all of them.
    """
    chosen = choose(registry, request.variant, request.choices, request.settings)
    check_needs(chosen.components.values())
    for line in chosen.bundle.changes:
        if line != f"variant {DEFAULT}: changes nothing":
            report.message(line)
    for line in chosen.bundle.lost:
        report.warning(line)
    if request.save_variant is not None and distributed_rank() == 0:
        code = save_variant(chosen, request.save_variant)
        report.message(f"saved variant: {request.save_variant}")
        if code:
            report.warning(
                f"{request.save_variant} names code that no plugin registers ({', '.join(code)}): "
                "who uses the file has to name it on the command line, too"
            )
    return starting_from(chosen, request.pretrained, request.freeze)


def run(
    request: Request, registry: Registry, workspace: Workspace, report: Reporter | None = None
) -> RunResult:
    """Run the whole method on a dataset; what is done already and still current is not done again.

    Raises:
        UsageError: The request cannot be right.
        NnunetError: A stage failed; what was finished before is kept.
    """
    report = report or Silence()
    if in_several_processes():
        raise UsageError(
            "A run is one process; torchrun has started several. Train with 'torchrun ... -m "
            "nnunet_cli train' or 'nnunet train --gpus N' first; 'nnunet run' with the same "
            "options then does what is missing."
        )
    several = len(set(request.configurations)) > 1
    if several and request.ensembles:
        request = replace(request, save_probabilities=True)
    with opened(request, registry, workspace, report) as steps:
        splits, source = steps.splits(), _image_folder(request, steps.dataset)
        trained = steps.train(splits, train_previous=True)
        models = [steps.consolidated(experiment, folds) for experiment, folds in trained]
        dataset, method = steps.dataset, steps.method
    selection = Selection(tuple(models))
    if several:
        choice, path = Choice(ensembles=request.ensembles), models[0].folder.parent / FILE
        selection = select(models, dataset, registry, choice, report, path)
    result = RunResult(dataset, method, steps.plans[1], selection)
    folder = models[0].folder.parent
    for warning in registry.hooks.results_ready(folder, dataset, workspace, report):
        report.warning(warning)
    if source is None or request.output is None:
        return result
    return _predict(request, result, source, request.output, registry, report)


def _image_folder(request: Request, dataset: Dataset) -> Path | None:
    """Return the folder to predict: a path, or the name of a folder of the dataset such as
    `imagesTs`.
    """
    if request.predict is None:
        return None
    if request.output is None:
        raise UsageError(
            "--predict needs --output, the folder that the predictions are written to."
        )
    candidates = [request.predict, dataset.folder / request.predict]
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        raise UsageError(
            f"There is no folder {request.predict} to predict, neither here nor in "
            f"{dataset.folder}."
        )
    refuse_own_input(found, request.output)
    return found


def _predict(
    request: Request,
    result: RunResult,
    source: Path,
    output: Path,
    registry: Registry,
    report: Reporter,
) -> RunResult:
    """Predict a folder with the best configuration; evaluate it where `labelsX` lies beside
    `imagesX`.
    """
    best, options = result.best, request.options
    if len(best.members) > 1 and result.selection.inference is not None:
        file = result.selection.inference
        paths = predict_inference(file, source, output, registry, options, report, trusted=True)
    else:
        options = replace(options, folds=options.folds or request.folds)
        model = best.members[0].model
        paths = predict_folder(model, source, output, registry, options, report)
    dataset, result = result.dataset, replace(result, predictions=tuple(paths))
    references = source.with_name(source.name.replace("images", "labels", 1))
    pairs = [(path, references / path.name) for path in paths]
    found = [pair for pair in pairs if pair[1].is_file()]
    if references == source or not found:
        return result
    if len(found) < len(pairs):
        report.warning(
            f"{references} has references of {len(found)} of {len(pairs)} predictions; the others "
            "are not evaluated"
        )
    try:
        summary = evaluate_files(found, dataset.labels, dataset.label_format, report=report)
    except NnunetError as error:
        report.warning(f"the predictions are not evaluated: {error}")
        return result
    dice, mean = dice_by_name(summary, dataset.labels), mean_foreground_dice(summary)
    return replace(result, prediction_dice=dice, prediction_mean_dice=mean)
