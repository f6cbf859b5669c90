"""What a report says, as plain values: no page, no picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_core.data.labels import Labels
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.store.calibration import CalibrationRecord
from nnunet_core.store.inference import InferenceDocument
from nnunet_core.store.models import ModelDocument
from nnunet_core.store.postprocessing import PostprocessingRecord


@dataclass(frozen=True)
class CaseScore:
    """One validation case.

    Attributes:
        case, fold: Its name, and the fold that did not see it.
        dice: {label or region: Dice}, None where neither map holds it; background is left out.
        found, true: {label or region: voxels} of the prediction and of the reference.
        background: Voxels of the reference that are background; None of regions.
        prediction, reference: The label files.
    """

    case: str
    fold: str
    dice: Mapping[str, float | None]
    found: Mapping[str, float]
    true: Mapping[str, float]
    background: float | None
    prediction: Path
    reference: Path

    @property
    def mean(self) -> float | None:
        """The mean over the labels that are defined."""
        defined = [value for value in self.dice.values() if value is not None]
        return sum(defined) / len(defined) if defined else None


@dataclass(frozen=True)
class LabelScore:
    """One label over all validation cases.

    Attributes:
        label: Name, or `mean` over the labels.
        cases: How many have a Dice.
        mean, median, lowest: Of these; None without any.
        interval: 95 % of the mean, or None.
        no_interval: Why there is none.
        missed, invented: Cases whose reference alone, or whose prediction alone, holds the label.
        folds: {fold: mean}.
    """

    label: str
    cases: int
    mean: float | None
    median: float | None
    lowest: float | None
    interval: tuple[float, float] | None
    no_interval: str
    missed: int
    invented: int
    folds: Mapping[str, float | None]


@dataclass(frozen=True)
class Fold:
    """One fold.

    Attributes:
        name: Number, or `all`.
        state: `finished`, `trained` (not validated), `in training`, `imported` or `broken`.
        problem: What is wrong or missing, for people; empty if nothing is.
        record: Its run.json; None where it is broken.
        epochs: Lines of metrics.jsonl.
        cases: Its validation.
        parameters: Numbers in the weights; None where they cannot be read.
    """

    name: str
    state: str
    problem: str = ""
    record: FoldRecord | None = None
    epochs: Sequence[Mapping[str, Any]] = ()
    cases: Sequence[CaseScore] = ()
    parameters: int | None = None


@dataclass(frozen=True)
class Setting:
    """A setting that is another one than usual: value, and the usual one."""

    name: str
    value: Any
    usual: Any


@dataclass(frozen=True)
class Part:
    """One component of the method.

    Attributes:
        kind: Of it.
        record: As the model stores it.
        changed: Settings that differ from those that the component has on its own.
        remark: What there is to know: not installed, another version, another one than the default.
    """

    kind: str
    record: ComponentRecord
    changed: Sequence[Setting]
    remark: str = ""


@dataclass(frozen=True)
class Planned:
    """Why a configuration is as it is.

    Attributes:
        reasons: {what was decided: why}; empty where the fingerprint is not here.
        missing: Why there are none.
        skipped: {other configuration of the plans: why there is none}.
        notes: Of the plans and the configuration.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ModelContent:
    """One model: a configuration with its folds.

    Attributes:
        folder, document: What it is.
        folds: By name.
        labels: Scores of the labels over all validation cases; empty without a validation.
        planned: Why its configuration is as it is.
        parts: Its components.
        command: That trains it; empty of what was not trained here.
        postprocessing: What was decided on validation cases.
        calibration: Temperature of its probabilities.
        received: What it came with, when it was installed or imported.
    """

    folder: Path
    document: ModelDocument
    folds: Sequence[Fold]
    labels: Sequence[LabelScore]
    planned: Planned
    parts: Sequence[Part]
    command: str
    postprocessing: Sequence[PostprocessingRecord]
    calibration: CalibrationRecord | None
    received: Received | None

    @property
    def name(self) -> str:
        """Of the configuration."""
        return self.document.configuration_name

    @property
    def cases(self) -> list[CaseScore]:
        """Validation cases of all numbered folds; of the fold `all`, where there is no other: it
        was trained on them.
        """
        numbered = [case for fold in self.folds if fold.name.isdigit() for case in fold.cases]
        return numbered or [case for fold in self.folds for case in fold.cases]

    @property
    def mean(self) -> LabelScore | None:
        """The score of the mean over labels."""
        return self.labels[-1] if self.labels else None


@dataclass(frozen=True)
class Received:
    """What came with a model from elsewhere.

    Attributes:
        licence, citation: Texts.
        cases, dice: How many validation cases its makers scored, and {label: mean Dice} of these.
    """

    licence: str = ""
    citation: str = ""
    cases: int = 0
    dice: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class RunContent:
    """A run: what one variant made of one dataset.

    Attributes:
        title: DATASET/VARIANT, and the configuration if it is one of them.
        models: Its models.
        inference: What was selected; None of a single configuration.
        data: The dataset as far as it is known here.
        problems: What is missing or damaged.
    """

    title: str
    models: Sequence[ModelContent]
    inference: InferenceDocument | None
    data: Sheet
    problems: Sequence[str]


@dataclass(frozen=True)
class CaseLine:
    """What is known of one training case.

    Attributes:
        name: Of it.
        shape: Voxels (z, y, x).
        spacing: mm (z, y, x).
        voxels: {label value or region: voxels}; None where its label was not read.
        intensities: (smallest, mean, largest) per channel; empty where it was not read.
        orientation: Letters such as `LPS`; empty where it is not known.
    """

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    voxels: Mapping[str, float] | None = None
    intensities: Sequence[tuple[float, float, float]] = ()
    orientation: str = ""


@dataclass(frozen=True)
class Sheet:
    """A dataset.

    Attributes:
        name: Of it.
        folder: Where it is; None where that is not known.
        channels: Names.
        labels: What values of its label maps mean.
        cases: Training cases, as far as they could be read.
        total: How many training cases there are.
        tests: How many cases there are in imagesTs; None where nobody looked.
        source: Where the numbers are from, a sentence.
        foreground: Rows of (channel, number by name) of the fingerprint.
        errors, warnings: What `dataset verify` found; None where it was not run on this content.
        description: What dataset.json says of it beside what is needed: reference, licence, ...
    """

    name: str
    folder: Path | None
    channels: Sequence[str]
    labels: Labels
    cases: Sequence[CaseLine]
    total: int
    tests: int | None
    source: str
    foreground: Sequence[tuple[str, Mapping[str, float]]] = ()
    errors: Sequence[str] | None = None
    warnings: Sequence[str] | None = None
    description: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Share:
    """One label over all cases.

    Attributes:
        name: Of it.
        cases: How many hold it, and of how many that is known.
        known: Of how many cases that is known.
        voxels: In all cases.
        share, of_foreground: Of all voxels, and of those that are not background; None of
            background, and where it is not known.
        volume: Median over the cases that hold it, millilitres; None in 2D.
    """

    name: str
    cases: int
    known: int
    voxels: float
    share: float | None
    of_foreground: float | None
    volume: float | None
