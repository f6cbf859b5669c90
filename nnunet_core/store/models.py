"""The folder of a trained model: what it is, which packages it needs, which folds are trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration
from nnunet_core.data.weights import InitialWeights
from nnunet_core.errors import PluginError, StorageError, UsageError
from nnunet_core.registry.components import RUN_KINDS, TRAINING_KINDS
from nnunet_core.registry.discovery import TARGET, Registry, Resolved, source_file
from nnunet_core.registry.provenance import components_digest, texts_of
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.names import Ending, PlainName, below
from nnunet_core.runtime.reporting import Reporter

FILE = "model.json"
WEIGHTS = "weights.safetensors"
_OTHERWISE = "Install the plugin that the model was trained with."
# how a text begins that names code, whatever follows; no address of the web
_CODE = re.compile(r"\s*[^\W\d][\w.]*\s*:(?!//)")


def _complete(components: dict[str, ComponentRecord]) -> dict[str, ComponentRecord]:
    if set(components) != set(RUN_KINDS):
        raise ValueError(f"must hold one of each kind: {', '.join(RUN_KINDS)}")
    return components


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
    dataset: PlainName
    variant: PlainName
    configuration_name: PlainName
    channels: tuple[str, ...]
    labels: Labels
    file_ending: Ending
    label_ending: Ending
    image_format: str | None = None
    label_format: str | None = None
    original_values: dict[int, int] = Field(default_factory=dict)
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...]
    configuration: Configuration
    components: Annotated[dict[str, ComponentRecord], AfterValidator(_complete)]
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
        trusted: Whether code that it names, and no plugin registers, may run.
    """

    folder: Path
    document: ModelDocument
    trusted: bool = False

    @classmethod
    def open(cls, folder: Path, trusted: bool = False) -> Model:
        """Read a model folder; nothing that it names is imported.

        Raises:
            UsageError: It holds no model.json.
            StorageError: Its model.json is damaged.
        """
        if not (folder / FILE).is_file():
            raise UsageError(f"{folder} is not a model folder: it has no {FILE}.")
        return cls(folder, ModelDocument.read(folder / FILE), trusted)

    def stages(self) -> tuple[Model, ...]:
        """Return the models before it in a cascade, the first one first, and itself.

        Raises:
            StorageError: They never end, or `previous` names another place than the folder beside.
        """
        found: tuple[Model, ...] = (self,)
        name = self.document.configuration.previous
        while name is not None:
            stage = Model.open(below(self.folder.parent, name), self.trusted)
            if stage.document in (model.document for model in found):
                raise StorageError(
                    f"'previous' of {found[0].folder / FILE} is {name}, which leads back to it: "
                    "such a cascade never ends. Get an intact copy of the model."
                )
            name, found = stage.document.configuration.previous, (stage, *found)
        return found

    def check_trusted(self, kinds: Iterable[str], report: Reporter) -> None:
        """Let nothing of these kinds be imported that no plugin registers, unless the user trusts
        the model; then say what will run.

        Raises:
            PluginError: The model names other code; the message shows it.
        """
        named = [f"{entry}: {_described(text)}" for entry, text in self._code(kinds)]
        if named and self.trusted:
            report.warning(
                f"as --trust allows, code that {self.folder / FILE} names and no plugin registers "
                f"runs now: {'; '.join(named)}"
            )
        elif named:
            raise PluginError(
                f"{self.folder / FILE} names code that no installed plugin registers, and nothing "
                f"of it was imported: {'; '.join(named)}. Allowed are names that plugins register "
                "(nnunet plugins list). Install the plugin that the model was trained with; or, if "
                "you know this code and who made the model, run the command again with --trust."
            )

    def _code(self, kinds: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield (entry, what it names) of code that no plugin registers: references, and texts of
        settings that look like them.
        """
        document = self.document
        for kind in kinds:
            record = document.components[kind]
            if ":" in record.reference:
                yield f"components.{kind}.reference", record.reference
            for text in filter(_CODE.match, texts_of(record.settings)):
                yield f"components.{kind}.settings", text
        extra = (document.configuration.extra, document.configuration.network.extra)
        for text in filter(_CODE.match, texts_of(extra)):
            yield "configuration.extra", text

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
        entry = f"components.{kind}.reference of {self.folder / FILE}"
        try:
            if self.trusted and ":" in record.reference:
                resolved = registry.resolve(kind, record.reference)
            else:
                resolved = registry.registered(kind, record.reference, entry, _OTHERWISE)
            resolved = resolved.with_settings(record.settings)
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


def _described(text: str) -> str:
    """Return what a model names, and the file that it would be; the file is found, not imported."""
    file = source_file(text) if TARGET.fullmatch(text) else None
    return f"{text!r} ({file or 'not found here'})"


def weights_digests(folds: Iterable[Path]) -> dict[str, str]:
    """Return {name of a fold: digest of its weights file}; every file is read whole."""
    return {fold.name.removeprefix("fold_"): files.file_digest(fold / WEIGHTS) for fold in folds}
