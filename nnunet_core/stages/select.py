"""Consolidate the folds of a configuration: cross-validation summary, postprocessing, the best
configuration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import Geometry
from nnunet_core.errors import StorageError
from nnunet_core.registry.provenance import component_record
from nnunet_core.runtime import files
from nnunet_core.stages.evaluate import mean_foreground_dice, summarise
from nnunet_core.stages.experiment import Experiment
from nnunet_core.store.models import weights_digests
from nnunet_core.store.postprocessing import (
    PostprocessingRecord,
    postprocessing_file,
    stored_postprocessing,
)
from nnunet_core.store.summaries import Summary

CROSS_VALIDATION = "crossval_summary.json"


@dataclass(frozen=True)
class ConfigurationResult:
    """What came out of one configuration.

    Attributes:
        name: `3d_fullres`, ...
        folder: Model folder.
        dice: {label or region name: mean Dice over the validation cases of the trained folds},
            before postprocessing.
        mean_dice: Mean over foreground labels; NaN when nothing could be scored.
        cases: Number of validation cases.
        postprocessing: What the postprocessor decided.
    """

    name: str
    folder: Path
    dice: Mapping[str, float]
    mean_dice: float
    cases: int
    postprocessing: Mapping[str, Any]


def consolidate(
    experiment: Experiment, summaries: Mapping[str, Mapping[str, Any]]
) -> ConfigurationResult:
    """Join the validation of the folds and fit the postprocessor on all their cases.

    Args:
        experiment: The configuration.
        summaries: {fold: summary of its validation}.
    """
    cases = [
        _located(experiment, fold, case)
        for fold in sorted(summaries)
        for case in summaries[fold]["results"]["all"]
    ]
    summary = summarise(
        cases,
        name=f"{experiment.method.name} folds {','.join(sorted(summaries))}",
        task=experiment.dataset.name,
    )
    _write(summary, experiment.folder / CROSS_VALIDATION)
    state = _fit_postprocessing(experiment, cases, sorted(summaries))
    return ConfigurationResult(
        name=experiment.configuration_name,
        folder=experiment.folder,
        dice=dice_by_name(summary, experiment.dataset),
        mean_dice=mean_foreground_dice(summary),
        cases=len(cases),
        postprocessing=state,
    )


def _write(summary: Mapping[str, Any], path: Path) -> None:
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


def _located(experiment: Experiment, fold: str, case: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entry of a validation case with the places where its files are now: a workspace
    may have been moved.
    """
    dataset = experiment.dataset
    name = Path(case["test"]).name.removesuffix(dataset.label_ending)
    files_now = {
        "test": experiment.validation_file(fold, name),
        "reference": dataset.case(name).label,
    }
    return {**case, **{key: str(path) for key, path in files_now.items()}}


def dice_by_name(summary: Mapping[str, Any], dataset: Dataset) -> dict[str, float]:
    """Return {label name: mean Dice} of the foreground labels or regions of a summary."""
    mean, labels = summary["results"]["mean"], dataset.labels
    keys = labels.region_names or tuple(str(value) for value in labels.foreground)
    shown = {key: key if labels.regions else labels.names[int(key)] for key in keys}
    values = {shown[key]: mean[key]["Dice"] for key in keys}
    return {name: float("nan" if value is None else value) for name, value in values.items()}


def best(results: Sequence[ConfigurationResult]) -> ConfigurationResult:
    """Return the configuration with the highest mean Dice of raw validation predictions.

    Spec: postprocessing and selection, section 5.
    """
    return max(results, key=lambda result: -1.0 if np.isnan(result.mean_dice) else result.mean_dice)


def _fit_postprocessing(
    experiment: Experiment, cases: Sequence[Mapping[str, Any]], folds: Sequence[str]
) -> Mapping[str, Any]:
    """Fit, store and return the postprocessor's state; reuse the stored one of the same
    predictions.
    """
    component = component_record(experiment.method.components["postprocessor"])
    path = postprocessing_file(experiment.folder, component, folds)
    inputs = files.digest([files.file_digest(Path(case["test"])) for case in cases])
    weights = weights_digests(experiment.fold_folder(fold) for fold in folds)
    stored = stored_postprocessing(path)
    if stored is not None and (stored.inputs, stored.weights) == (inputs, weights):
        return stored.state
    postprocessor: Postprocessor = experiment.method.build("postprocessor")
    dataset = experiment.dataset

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray, Geometry]]:
        for case in cases:
            prediction = dataset.label_format.read(Path(case["test"]))
            yield (
                prediction.array[0],
                dataset.load_label(Path(case["reference"])),
                prediction.geometry,
            )

    state = postprocessor.fit(pairs, dataset.labels)
    PostprocessingRecord(
        component=component, folds=tuple(folds), weights=weights, inputs=inputs, state=dict(state)
    ).write(path)
    return state
