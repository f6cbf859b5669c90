"""The folder of a trained model: what it is, which packages it needs, which folds are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration
from nnunet_core.data.weights import InitialWeights
from nnunet_core.errors import PluginError, UsageError
from nnunet_core.registry.components import TRAINING_KINDS
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.provenance import components_digest
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter

FILE = "model.json"
WEIGHTS = "weights.safetensors"


class ModelDocument(files.Document):
    """What a model folder says of itself, without the raw dataset at hand.

    Attributes:
        dataset, variant, configuration_name: Where it comes from.
        channels: Channel names, in the order of the input files.
        labels: What its outputs mean.
        file_ending: Of the images that it was trained on.
        label_ending: Of the label files that it writes.
        image_format, label_format: Components that read and write these files, where dataset.json
            names them.
        original_values: {value of a label: the one that it was renumbered from}; empty where none
            was.
        mirror_axes: Axes of the patch that training mirrored, and prediction averages over.
        configuration: Patch size, spacing, network.
        components: Every component with its distribution and version.
        initial: Weights that the trainings started from.
    """

    schema_version: Literal[2] = 2
    dataset: str
    variant: str
    configuration_name: str
    channels: tuple[str, ...]
    labels: Labels
    file_ending: str
    label_ending: str
    image_format: str | None = None
    label_format: str | None = None
    original_values: dict[int, int] = Field(default_factory=dict)
    mirror_axes: tuple[int, ...]
    configuration: Configuration
    components: dict[str, ComponentRecord]
    initial: InitialWeights | None = None

    def digest(self) -> str:
        """Identify what the folds of one model have in common: configuration, labels, components of
        the training.
        """
        configuration = self.configuration.model_dump(mode="json", exclude={"notes"})
        training = {
            kind: self.components[kind] for kind in TRAINING_KINDS if kind in self.components
        }
        initial = None if self.initial is None else self.initial.identity()
        return files.digest(
            [
                configuration,
                self.labels.model_dump(mode="json"),
                components_digest(training),
                initial,
            ]
        )


@dataclass(frozen=True)
class Model:
    """A model folder that was read and checked.

    Attributes:
        folder: `results/<dataset>/<variant>/<configuration>`.
        document: Its model.json.
    """

    folder: Path
    document: ModelDocument

    @classmethod
    def open(cls, folder: Path) -> Model:
        """Read a model folder.

        Raises:
            UsageError: It holds no model.json.
            StorageError: Its model.json is damaged.
        """
        if not (folder / FILE).is_file():
            raise UsageError(f"{folder} is not a model folder: it has no {FILE}.")
        return cls(folder, ModelDocument.read(folder / FILE))

    def folds(self, asked: tuple[str, ...] = ()) -> tuple[Path, ...]:
        """Return the folders of the trained folds that were asked for; of all numbered folds when
        none was.

        Raises:
            UsageError: A fold is not trained, or was trained with other plans, labels or code than
                model.json describes.
        """
        trained = self.trained()
        wanted = asked or tuple(name for name in trained if name.isdigit()) or tuple(trained)
        missing = [name for name in wanted if name not in trained]
        if missing or not wanted:
            raise UsageError(
                f"Fold {', '.join(missing) or '0'} of {self.folder} is not trained. Trained: "
                f"{', '.join(trained) or 'none'}. Train with: nnunet train {self.document.dataset} "
                f"--configuration {self.document.configuration_name} --folds "
                f"{','.join(missing) or '0'}, with the options of this model's other folds (they "
                f"are in {FILE})"
            )
        digest = self.document.digest()
        others = [name for name in wanted if trained[name][1].model_digest != digest]
        if others:
            raise UsageError(
                f"Fold {', '.join(others)} of {self.folder} was trained with other plans, labels "
                f"or code than {FILE} has now, so it is no part of this model. Name the folds to "
                f"use (--folds), or train it again: nnunet train {self.document.dataset} "
                f"--configuration {self.document.configuration_name} --folds {','.join(others)}, "
                f"with the options of this model's other folds (they are in {FILE})"
            )
        return tuple(trained[name][0] for name in wanted)

    def trained(self) -> dict[str, tuple[Path, FoldRecord]]:
        """Return {name of a trained fold: its folder and record}."""
        found = {}
        for folder in sorted(self.folder.glob("fold_*")):
            if (folder / WEIGHTS).is_file() and (folder / RUN_FILE).is_file():
                record = FoldRecord.read(folder / RUN_FILE)
                if record.status != "running":
                    found[folder.name.removeprefix("fold_")] = folder, record
        return found

    def component(self, registry: Registry, kind: str, report: Reporter) -> Resolved:
        """Resolve a component as the model was trained with it; warn when another version is
        installed.

        Raises:
            PluginError: The package that provides it is not installed; the message says what to
                install.
        """
        record = self.document.components[kind]
        try:
            resolved = registry.resolve(kind, record.reference).with_settings(record.settings)
            resolved.load()
        except (PluginError, UsageError) as error:
            package = f"'{record.distribution}=={record.version}'"
            install = f"Run: pip install {package}" if record.distribution else ""
            raise PluginError(
                f"The model {self.folder} needs the {kind} '{record.reference}' "
                f"of {record.distribution or record.target} {record.version or ''}, which cannot "
                f"be loaded: {error} {install}"
            ) from error
        if resolved.version != record.version:
            report.warning(
                f"The {kind} '{record.reference}' is installed in version {resolved.version}; the "
                f"model was trained with {record.version}. For equal numbers run: pip install "
                f"'{record.distribution}=={record.version}'"
            )
        return resolved


def weights_digests(folds: Iterable[Path]) -> dict[str, str]:
    """Return {name of a fold: digest of its weights file}; every file is read whole."""
    return {fold.name.removeprefix("fold_"): files.file_digest(fold / WEIGHTS) for fold in folds}
