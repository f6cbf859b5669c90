"""An experiment: one configuration of one method on one dataset, and what its folds share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_core.contracts.abilities import ChecksRuntime, Mirrors, ability
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.plans import Configuration
from nnunet_core.data.splits import Split
from nnunet_core.errors import StorageError
from nnunet_core.registry.components import TRAINING_KINDS
from nnunet_core.registry.provenance import component_record, components_digest
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.evaluate import targets
from nnunet_core.stages.method import Method
from nnunet_core.store.models import ModelDocument
from nnunet_core.store.prepared import LabelStore, PreparedStore
from nnunet_core.store.probabilities import probabilities_file
from nnunet_core.store.summaries import SUMMARY, Summary

VALIDATION = "validation"


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
        previous: Label maps of the previous stage, in a cascade.
        save_probabilities: Whether a validation also holds the probabilities of its cases.
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
    save_probabilities: bool = False

    def fold_folder(self, fold: str) -> Path:
        """Return the folder of a fold."""
        return self.folder / f"fold_{fold}"

    def validation_file(self, fold: str, name: str) -> Path:
        """Return the predicted label map of a validation case."""
        return below(self.fold_folder(fold) / VALIDATION, f"{name}{self.dataset.label_ending}")

    def is_finished(self, fold: str, split: Split) -> bool:
        """Return whether a fold of these inputs is trained, and validated with the predictor of the
        method, and all of its validation is there.
        """
        folder = self.fold_folder(fold)
        finished = is_finished(folder, self.inputs_digest(split), self.predictor())
        return finished and isinstance(self.validation(fold, split), Summary)

    def validation(self, fold: str, split: Split, name: str = VALIDATION) -> Summary | str:
        """Return the summary of a validation, or what is missing or damaged of it.

        Args:
            fold: Number, or `all`.
            split: Its cases.
            name: Folder of the validation in that of the fold.
        """
        folder = self.fold_folder(fold) / name
        try:
            summary = Summary.read(folder / SUMMARY)
        except StorageError as error:
            return str(error).rstrip(".")
        outputs = {self.validation_file(fold, case).name for case in split.val}
        problem = summary.problem(folder, outputs, set(targets(self.dataset.labels)))
        if not problem and self.save_probabilities:
            there = (probabilities_file(folder / output) for output in sorted(outputs))
            problem = next((f"{path.name} is missing" for path in there if not path.is_file()), "")
        return problem or summary

    def predictor(self) -> ComponentRecord:
        """Describe the predictor, which decides whether a trained fold has to be validated anew."""
        return component_record(self.method.components["predictor"])

    def options(self) -> list[str]:
        """Return the options of the command line that make its method."""
        return self.method.options(self.configuration)

    def mirror_axes(self) -> tuple[int, ...]:
        """Return the axes of the patch that training mirrors: all, unless the augmentation says
        otherwise.
        """
        augmentation = ability(self.method.build("augmentation"), Mirrors)
        if augmentation is None:
            return tuple(range(self.configuration.dimensions))
        return tuple(augmentation.mirrored_axes(self.configuration))

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
            image_format=self.dataset.format_names[0],
            label_format=self.dataset.format_names[1],
            original_values=dict(self.dataset.original_values),
            codes=dict(self.dataset.codes),
            tolerances=dict(self.dataset.tolerances),
            mirror_axes=self.mirror_axes(),
            configuration=self.configuration,
            components=self.method.records(self.configuration),
            initial=self.method.initial,
        )

    def inputs_digest(self, split: Split) -> str:
        """Identify everything that a fold's training depends on."""
        records = self.method.records(self.configuration)
        chosen = {kind: records[kind] for kind in TRAINING_KINDS}
        configuration = self.configuration.model_dump(mode="json", exclude={"notes"})
        initial, previous = self.method.initial, self.previous
        return files.digest(
            [
                self.dataset.digest,
                configuration,
                components_digest(chosen),
                list(split.train),
                list(split.val),
                self.seed,
                "" if previous is None else files.digest(previous.keys),
                None if initial is None else initial.identity(),
            ]
        )


def check_runtime(method: Method, runtime: Runtime) -> None:
    """Build every component, and let it refuse its settings, the device or the precision, before
    cases are prepared.

    Raises:
        UsageError: One of them does (abilities.ChecksRuntime).
        PluginError: One is none of its kind, see `abilities.built`.
    """
    for kind in method.components:
        component = method.build(kind)
        if kind in ("trainer", "predictor") and (able := ability(component, ChecksRuntime)):
            able.check(runtime)


def is_finished(folder: Path, inputs: str, predictor: ComponentRecord) -> bool:
    """Return whether a fold of these inputs is trained, and validated with this predictor."""
    if not (folder / RUN_FILE).is_file():
        return False
    record = FoldRecord.read(folder / RUN_FILE)
    return record.is_validated(predictor) and record.inputs_digest == inputs
