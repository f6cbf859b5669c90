"""Consolidate the folds of a configuration: cross-validation summary, postprocessing, and what is
compared to select the best.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.abilities import built
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.errors import StorageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.evaluate import mean_foreground_dice, summarise
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.postprocessing import (
    PostprocessingRecord,
    postprocessing_file,
    stored_postprocessing,
)
from nnunet_core.store.summaries import SUMMARY, Summary

CROSS_VALIDATION = "crossval_summary.json"


@dataclass(frozen=True)
class Trained:
    """A model and the folds of it that count.

    Attributes:
        model: What was trained.
        folds: Names.
    """

    model: Model
    folds: tuple[str, ...]

    @property
    def title(self) -> str:
        """VARIANT/CONFIGURATION."""
        return f"{self.model.document.variant}/{self.model.document.configuration_name}"


@dataclass(frozen=True)
class Candidate:
    """What may predict: a model, or an ensemble.

    Attributes:
        members: The models.
        folder: Of the model, or of the ensemble's validation.
        dice: {label or region name: mean Dice over the validation cases of the folds}, before
            postprocessing.
        mean_dice: Mean over foreground labels; NaN when nothing could be scored.
        validation: (validation case, its predicted label file); a case may be in several folds.
        postprocessing: What the postprocessor decided on these; None where it was not asked.
    """

    members: tuple[Trained, ...]
    folder: Path
    dice: Mapping[str, float]
    mean_dice: float
    validation: Sequence[tuple[str, Path]]
    postprocessing: PostprocessingRecord | None

    @property
    def name(self) -> str:
        """`3d_fullres`, or `2d + 3d_fullres`."""
        return " + ".join(m.model.document.configuration_name for m in self.members)

    @property
    def title(self) -> str:
        """`default/3d_fullres`, or `default/2d + default/3d_fullres`."""
        return " + ".join(member.title for member in self.members)

    @property
    def cases(self) -> int:
        """Number of validation cases."""
        return len(self.validation)


def consolidate(
    trained: Trained,
    dataset: Dataset,
    registry: Registry,
    report: Reporter,
    postprocess: bool = True,
) -> Candidate:
    """Join the validation of folds, and fit the postprocessor of the model on all their cases.

    Args:
        trained: The folds, validated.
        dataset: Their dataset.
        registry: Provides the postprocessor.
        report: Where warnings go.
        postprocess: Whether it is fitted.

    Raises:
        StorageError: A validation is missing or damaged.
    """
    model = trained.model
    validation, cases = [], []
    for fold in sorted(trained.folds):
        folder = model.fold_folder(fold) / VALIDATION
        for case in Summary.read(folder / SUMMARY).content()["results"]["all"]:
            name = Path(case["test"]).name.removesuffix(dataset.label_ending)
            path = below(folder, f"{name}{dataset.label_ending}")
            validation.append((name, path))
            reference = dataset.case(name).label
            # where the files are now: a workspace may have been moved
            cases.append({**case, "test": str(path), "reference": str(reference)})
    title = f"{model.document.variant} folds {','.join(sorted(trained.folds))}"
    summary = summarise(cases, name=title, task=dataset.name)
    write_summary(summary, model.folder / CROSS_VALIDATION)
    record = None
    if postprocess:
        weights = weights_digests(model.fold_folder(fold) for fold in trained.folds)
        fitting = Fitting(model, dataset, validation, trained.folds, weights)
        record = fit_postprocessing(fitting, model.folder, registry, report)
    return Candidate(
        members=(trained,),
        folder=model.folder,
        dice=dice_by_name(summary, dataset.labels),
        mean_dice=mean_foreground_dice(summary),
        validation=validation,
        postprocessing=record,
    )


def write_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Write a summary, unless one of the same content lies there: the disk may be read-only."""
    new = Summary.model_validate(summary)
    try:
        old = Summary.read(path).results
    except StorageError:
        old = None
    if old == new.results:
        return
    moved = old is not None and old.mean == new.results.mean  # only the paths are others
    with contextlib.suppress(StorageError) if moved else contextlib.nullcontext():
        new.write(path)


def dice_by_name(summary: Mapping[str, Any], labels: Labels) -> dict[str, float]:
    """Return {label name: mean Dice} of the foreground labels or regions of a summary."""
    mean = summary["results"]["mean"]
    keys = labels.region_names or tuple(str(value) for value in labels.foreground)
    shown = {key: key if labels.regions else labels.names[int(key)] for key in keys}
    values = {shown[key]: mean[key]["Dice"] for key in keys}
    return {name: math.nan if value is None else value for name, value in values.items()}


@dataclass(frozen=True)
class Fitting:
    """What a postprocessor is fitted on.

    Attributes:
        model: Whose postprocessor.
        dataset: With the references.
        validation: (case, predicted label file).
        folds: Whose cases they are.
        weights: See `PostprocessingRecord`.
    """

    model: Model
    dataset: Dataset
    validation: Sequence[tuple[str, Path]]
    folds: Sequence[str]
    weights: Mapping[str, str]

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray, Geometry]]:
        """Yield prediction, reference and geometry of every case."""
        for name, path in self.validation:
            prediction = self.dataset.label_format.read(path)
            reference = self.dataset.case(name).label
            assert reference is not None  # a training case has one
            label = self.dataset.load_label(reference)
            yield prediction.array[0], label, prediction.geometry


def fit_postprocessing(
    fitting: Fitting, folder: Path, registry: Registry, report: Reporter
) -> PostprocessingRecord:
    """Fit, store (below `folder`) and return what a postprocessor decides; reuse what it decided on
    the same predictions.
    """
    component = fitting.model.document.components["postprocessor"]
    path = postprocessing_file(folder, component, sorted(fitting.folds))
    inputs = files.digest([files.file_digest(path) for _, path in fitting.validation])
    stored = stored_postprocessing(path)
    if stored is not None and (stored.inputs, stored.weights) == (inputs, dict(fitting.weights)):
        return stored
    postprocessor = built(fitting.model.component(registry, "postprocessor", report))
    record = PostprocessingRecord(
        component=component,
        folds=tuple(sorted(fitting.folds)),
        weights=dict(fitting.weights),
        inputs=inputs,
        state=dict(postprocessor.fit(fitting.pairs, fitting.dataset.labels)),
    )
    record.write(path)
    return record
