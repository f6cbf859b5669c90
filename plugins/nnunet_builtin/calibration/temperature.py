"""Fit a temperature: one number that makes a model as sure as it is right (Guo et al. 2017, On
calibration of modern neural networks).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import optimize

from nnunet_core.data.labels import Labels
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.evaluate import read_label_map
from nnunet_core.stages.formats import find_format
from nnunet_core.store.calibration import FILE, CalibrationRecord, tempered
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.probabilities import probabilities_file, read_probabilities
from nnunet_core.store.summaries import SUMMARY, Summary

BINS = 15
#: Limits of the temperature.
LOWEST, HIGHEST = 0.05, 20.0
_MARGIN = 5  # voxels around the foreground
_VOXELS_PER_CASE = 100_000
_LEAST = 1e-7  # of a probability: half precision keeps no smaller one


def calibrate_model(model: Model, registry: Registry, report: Reporter) -> CalibrationRecord:
    """Fit the temperature of a model on the validation cases of its trained folds; write
    `calibration.json`.

    Compared are the voxels in the box of the foreground, reference or predicted, and five voxels
    around it: air far from it would make every model look calibrated. Of a case, 100,000 of them
    are drawn at most.

    Raises:
        UsageError: No fold is validated, or probabilities of the validation cases are missing; the
            message says what to run.
        StorageError: A file is damaged.
    """
    folds, labels = model.folds(), model.document.labels
    cases = [case for fold in folds for case in _cases(fold, model)]
    reader = find_format(model.document.label_ending, registry, model.document.label_format)
    samples, truths = [], []
    with report.track("calibrate", len(cases)) as tracker:
        for predicted, reference in cases:
            label = read_label_map(reference, reader)
            probabilities = read_probabilities(predicted)
            if label.shape != probabilities.shape[1:]:
                raise StorageError(
                    f"{predicted} has the shape {probabilities.shape[1:]}, {reference} "
                    f"{label.shape}. Validate the fold again."
                )
            values, truth = _drawn(probabilities, label, labels)
            samples.append(values)
            truths.append(truth)
            tracker.advance(1, predicted.name)
    record = fit(np.concatenate(samples, axis=1), np.concatenate(truths, axis=-1), labels)
    record = record.model_copy(update={"cases": len(cases), "weights": weights_digests(folds)})
    record.write(model.folder / FILE)
    return record


def fit(probabilities: np.ndarray, truth: np.ndarray, labels: Labels) -> CalibrationRecord:
    """Return the temperature with the highest likelihood of the true labels.

    Args:
        probabilities: float32 (K, n).
        truth: Of classes, the index of the true one (n); of regions, whether a voxel is in each
            (K, n).
        labels: What the probabilities are of.
    """
    regions = bool(labels.regions)

    def loss(logarithm: float) -> float:
        found = tempered(probabilities, float(np.exp(logarithm)), regions)
        return float(-np.log(np.maximum(_of_truth(found, truth, regions), _LEAST)).mean())

    limits = (np.log(LOWEST), np.log(HIGHEST))
    best = optimize.minimize_scalar(loss, bounds=limits, method="bounded")
    after = tempered(probabilities, float(np.exp(best.x)), regions)
    return CalibrationRecord(
        temperature=float(np.exp(best.x)),
        error_before=calibration_error(probabilities, truth, regions),
        error_after=calibration_error(after, truth, regions),
        loss_before=loss(0.0),
        loss_after=float(best.fun),
        cases=0,
        voxels=probabilities.shape[1],
        weights={},
    )


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, regions: bool) -> float:
    """Return the expected calibration error, 0 to 1; arguments as of `fit`.

    Of classes, how sure is the probability of the most probable one. Of regions, that of being in
    or not, whichever is more probable.
    """
    if regions:
        sure = np.maximum(probabilities, 1 - probabilities).ravel()
        right = ((probabilities > 0.5) == truth).ravel()
    else:
        sure, right = probabilities.max(axis=0), probabilities.argmax(axis=0) == truth
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, sure, BINS) - np.bincount(bins, right, BINS)
    return float(np.abs(gaps).sum() / sure.size)


def _of_truth(probabilities: np.ndarray, truth: np.ndarray, regions: bool) -> np.ndarray:
    if regions:
        return np.where(truth, probabilities, 1 - probabilities)
    return np.take_along_axis(probabilities, truth[None], axis=0)[0]


def _cases(fold: Path, model: Model) -> Iterator[tuple[Path, Path]]:
    """Yield (probabilities, reference) of the validation cases of a fold."""
    summary = fold / "validation" / SUMMARY
    rows = Summary.read(summary).results.all if summary.is_file() else ()
    found = [(probabilities_file(Path(str(r["test"]))), Path(str(r["reference"]))) for r in rows]
    # the folder may have been moved since
    found = [(summary.parent / path.name, reference) for path, reference in found]
    if not found or not all(path.is_file() for path, _ in found):
        if model.is_received:
            raise UsageError(
                f"{model.folder} was imported or installed, without the validation cases that a "
                "temperature is fitted on. Only a model that was trained in this workspace can be "
                "calibrated; predict without --calibrated."
            )
        raise UsageError(
            f"{summary.parent} has no probabilities of its validation cases. Run: nnunet validate "
            f"{model.document.dataset} --save-probabilities, with the options of the training."
        )
    yield from found


def _drawn(
    probabilities: np.ndarray, label: np.ndarray, labels: Labels
) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 probabilities (K, n) and the truth of voxels near the foreground."""
    if labels.regions:
        predicted = (probabilities > 0.5).any(axis=0)
        values = np.stack([np.isin(label, region) for region in labels.regions])
    else:
        predicted = probabilities.argmax(axis=0) > 0
        order = {value: place for place, value in enumerate((0, *labels.foreground))}
        table = np.zeros(max(*order, labels.ignore or 0, int(label.max())) + 1, np.int64)
        table[list(order)] = list(order.values())
        values = table[label]
    known = label != labels.ignore if labels.ignore is not None else np.ones(label.shape, bool)
    inside = np.zeros(label.shape, bool)
    inside[_box(predicted | (label > 0))] = True
    places = np.flatnonzero(inside & known & (probabilities.max(axis=0) > 0))
    if places.size > _VOXELS_PER_CASE:
        random = np.random.default_rng(0)
        places = np.sort(random.choice(places, _VOXELS_PER_CASE, replace=False))
    flat = probabilities.reshape(len(probabilities), -1)[:, places].astype(np.float32)
    return flat, values.reshape(*values.shape[:-3], -1)[..., places]


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    found = np.nonzero(mask)
    if not found[0].size:
        return tuple(slice(0, 0) for _ in mask.shape)
    return tuple(slice(max(0, axis.min() - _MARGIN), axis.max() + _MARGIN + 1) for axis in found)
