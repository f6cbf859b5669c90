"""The folder of a trained model: what it is, which packages it needs, which folds are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_core.data.labels import Labels
from nnunet_core.data.meaning import LabelCodes
from nnunet_core.data.plans import Configuration
from nnunet_core.data.weights import InitialWeights
from nnunet_core.errors import PluginError, StorageError, UsageError
from nnunet_core.registry.components import PREDICTING_KINDS, RUN_KINDS, TRAINING_KINDS
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.provenance import CODE, components_digest, described_code, texts_of
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.names import Ending, PlainName, below
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.store.origins import KEPT, command, options_of, variants_of

FILE = "model.json"
WEIGHTS = "weights.safetensors"
#: What a model is installed with lies beside its model.json.
MANIFEST = "manifest.json"
RECEIVE_AGAIN = (
    "Import or install it again, with all folds: 'nnunet models import' or 'nnunet models install' "
    "with --overwrite."
)
_OTHERWISE = "Install the plugin that the model was trained with."


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
        codes: {name of a label: what it is in codes of a terminology}, of those that have any.
        tolerances: {label or region: mm within which two surfaces count as one}, where the dataset
            says it; how predictions are judged, not how they are made.
        mirror_axes: Axes of the patch that training mirrored, and prediction averages over.
        configuration: Patch size, spacing, network.
        components: Every component with its distribution and version; those that predict are
            enough for an imported model.
        initial: Weights that the trainings started from.
        origin: Of an imported model, what made it, for people; else None.
    """

    schema_version: Literal[3] = 3
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
    codes: dict[str, LabelCodes] = Field(default_factory=dict)
    tolerances: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...]
    configuration: Configuration
    components: dict[str, ComponentRecord]
    initial: InitialWeights | None = None
    origin: Annotated[str, Field(pattern=r"^[ -~]{1,500}$")] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ModelDocument:
        needed = RUN_KINDS if self.origin is None else PREDICTING_KINDS
        if not set(needed) <= set(self.components) <= set(RUN_KINDS):
            raise ValueError(f"components must hold one of each kind: {', '.join(needed)}")
        return self

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
        named = [f"{entry}: {described_code(text)}" for entry, text in self._code(kinds)]
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
            for text in filter(CODE.match, texts_of(record.settings)):
                yield f"components.{kind}.settings", text
        extra = (document.configuration.extra, document.configuration.network.extra)
        for text in filter(CODE.match, texts_of(extra)):
            yield "configuration.extra", text

    def folds(self, asked: tuple[str, ...] = ()) -> tuple[Path, ...]:
        """Return the folders of the trained folds that were asked for; of all numbered folds when
        none was.

        Raises:
            UsageError: A fold is not trained, or was trained with other plans, labels or code than
                model.json describes.
            StorageError: A file of a trained fold is missing or damaged.
        """
        found = self.found_folds()
        trained = self.trained()
        known = {**trained, **{name: found[name] for name in found if isinstance(found[name], str)}}
        wanted = asked or tuple(name for name in known if name.isdigit()) or tuple(known)
        self._refuse_broken(found, wanted)
        missing = [name for name in wanted if name not in trained]
        if missing or not wanted:
            raise UsageError(
                f"Fold {', '.join(missing) or '0'} of {self.folder} is not trained. Trained: "
                f"{', '.join(trained) or 'none'}. {self._training(missing or ['0'])}"
            )
        digest = self.document.digest()
        others = [name for name in wanted if trained[name].model_digest != digest]
        if others:
            raise UsageError(
                f"Fold {', '.join(others)} of {self.folder} was trained with other plans, labels "
                f"or code than {FILE} has now, so it is no part of this model. Name the folds to "
                f"use (--folds), or make it anew. {self._training(others)}"
            )
        return tuple(self.fold_folder(name) for name in wanted)

    def fold_folder(self, name: str) -> Path:
        """Return the folder of a fold."""
        return self.folder / f"fold_{name}"

    def trained(self) -> dict[str, FoldRecord]:
        """Return {name of a trained fold: its record}."""
        return {
            name: found
            for name, found in self.found_folds().items()
            if isinstance(found, FoldRecord) and found.status != "running"
        }

    def found_folds(self) -> dict[str, FoldRecord | str]:
        """Return {name of a fold: its record, or what is wrong with its files}; nothing large is
        read.
        """
        folders = sorted(path for path in self.folder.glob("fold_*") if path.is_dir())
        found = {folder.name.removeprefix("fold_"): _found(folder) for folder in folders}
        return {name: state for name, state in found.items() if state is not None}

    def _refuse_broken(self, found: Mapping[str, FoldRecord | str], wanted: Iterable[str]) -> None:
        broken = {name: state for name in wanted if isinstance(state := found.get(name), str)}
        for name, problem in broken.items():
            usable = [n for n in self.trained() if n not in broken]
            others = f"name the others (--folds {','.join(usable)}), or " if usable else ""
            raise StorageError(
                f"Fold {name} of {self.folder} is broken: {problem}. Put an intact copy in its "
                f"place, {others}make it anew. {self._training([name])}"
            )

    def options(self, registry: Registry) -> list[str]:
        """Return the options of the command line that make this model's method."""
        document = self.document
        kept = self.folder.parent / KEPT
        variants = (str(kept),) if kept.is_file() else variants_of(document.variant, registry)
        return options_of(variants, document.components, document.initial, registry)

    @property
    def is_received(self) -> bool:
        """Whether it was imported or installed, and not trained here."""
        return self.document.origin is not None or (self.folder / MANIFEST).is_file()

    def _training(self, folds: Sequence[str]) -> str:
        if self.is_received:
            origin = self.document.origin
            what = f"imported, from {origin}" if origin else "installed"
            return f"It was {what}. {RECEIVE_AGAIN}"
        name, options = self.document.configuration_name, self.options(Registry.discover())
        options += ["--configuration", name, "--folds", ",".join(folds)]
        return f"Train with: {command('train', self.document.dataset, options)}"

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


def _found(fold: Path) -> FoldRecord | str | None:
    """Return the record of a fold, what is wrong with its files, or None if it has none."""
    if not (fold / RUN_FILE).is_file():
        return f"{RUN_FILE} is missing" if (fold / WEIGHTS).is_file() else None
    try:
        record = FoldRecord.read(fold / RUN_FILE)
    except StorageError as error:
        return str(error).rstrip(".")
    return weights_problem(fold, record) or record


def weights_record(fold: Path) -> tuple[int, str]:
    """Return (bytes, digest) of the weights file of a fold, which is read whole."""
    path = fold / WEIGHTS
    return path.stat().st_size, files.file_digest(path)


def weights_problem(fold: Path, record: FoldRecord, whole: bool = False) -> str:
    """Say what is wrong with the weights of a trained fold; empty if nothing is.

    Args:
        fold: Its folder.
        record: Its run.json.
        whole: Read the file, instead of looking at its size alone.
    """
    path = fold / WEIGHTS
    if record.status == "running":
        return ""
    if not path.is_file():
        return f"{WEIGHTS} is missing"
    size, digest = record.weights or (0, "")
    if path.stat().st_size != size:
        return f"{WEIGHTS} has {path.stat().st_size} bytes instead of {size}"
    if whole and files.file_digest(path) != digest:
        return f"the content of {WEIGHTS} is not what the training wrote"
    return ""


def check_weights(fold: Path) -> None:
    """Compare the weights of a trained fold with its run.json; they are read whole.

    Raises:
        StorageError: They are missing or damaged, or the record is.
    """
    record = FoldRecord.read(fold / RUN_FILE)
    if problem := weights_problem(fold, record, whole=True):
        raise StorageError(f"{fold / WEIGHTS} is damaged: {problem}. {weights_advice(fold)}")


def weights_advice(fold: Path) -> str:
    """Say how the weights of a fold are made anew, if those that are there cannot be used."""
    with contextlib.suppress(StorageError, UsageError):
        if Model.open(fold.parent).is_received:
            return f"Put an intact copy in their place. {RECEIVE_AGAIN}"
    return (
        "Put an intact copy in their place, or delete them: 'nnunet train' with the same options "
        "then trains the fold anew."
    )


def weights_digests(folds: Iterable[Path]) -> dict[str, str]:
    """Return {name of a fold: digest of its weights}, as their records say."""
    records = {fold.name.removeprefix("fold_"): FoldRecord.read(fold / RUN_FILE) for fold in folds}
    return {name: record.weights[1] if record.weights else "" for name, record in records.items()}
