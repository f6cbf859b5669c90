"""Overlap metrics from voxel counts, per case and as means over cases (spec: postprocessing and
selection, section 1).

Metrics are JSON values: a metric that is undefined (0 / 0, for instance the Dice of a label that is
in neither map) is None in memory and `null` in files, where v1 wrote a bare NaN that is no valid
JSON. Means leave undefined values out.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_core.data.images import Image
from nnunet_core.data.orientation import turned_like
from nnunet_core.errors import DatasetError, ImageError, counted, listed
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.runtime.workers import Workers

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.data.images import Geometry, ImageFormat
    from nnunet_core.data.labels import Labels

#: {metric name: value}, None where the metric is undefined.
Metrics = dict[str, float | None]
#: What is measured of a pair besides: prediction, reference, both integers (Z, Y, X), and the
#: geometry of the reference to {target: metrics}.
Measure = Callable[[np.ndarray, np.ndarray, "Geometry"], dict[str, Metrics]]

# of a pair, at most: maps that are stored as floats, or a map of distances
_BYTES_PER_VOXEL = 24


def targets(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Return what is evaluated: {key in a summary: label values that count as one object}.

    Regions by name for region-based labels, else every label with background, by value (`"0"`,
    `"1"`, ...).
    """
    if labels.regions:
        return dict(zip(labels.region_names, labels.regions, strict=True))
    return {str(value): (value,) for value in (0, *labels.foreground)}


def evaluate_case(
    prediction: np.ndarray, reference: np.ndarray, labels: Labels
) -> dict[str, Metrics]:
    """Compare two integer label maps (Z, Y, X); return {target: {metric: value}} with the 13
    metrics of v1.

    Voxels whose reference is the ignore label are left out. Values that `labels` does not know
    belong to no target.

    Raises:
        ImageError: The maps differ in shape or do not hold integers.
    """
    return _scores(joint_counts(prediction, reference, labels), labels)


def joint_counts(prediction: np.ndarray, reference: np.ndarray, labels: Labels) -> np.ndarray:
    """Count voxels by (reference value, predicted value): int64 (n, n), the last row and column for
    unknown values.

    Raises:
        ImageError: The maps differ in shape or do not hold integers.
    """
    if prediction.shape != reference.shape:
        raise ImageError(
            f"The prediction has shape {prediction.shape} and the reference {reference.shape}; "
            "both must lie on the grid of the same image."
        )
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "iub":
            raise ImageError(
                f"The {name} holds {array.dtype} values; label maps hold integers. Convert it "
                "first."
            )
    unknown = max(labels.values) + 1
    counts = np.zeros((unknown + 1) ** 2, np.int64)
    for predicted, true in zip(prediction, reference, strict=True):  # by slice: memory stays small
        index = _known(true, unknown) * (unknown + 1) + _known(predicted, unknown)
        counts += np.bincount(index.ravel(), minlength=counts.size)
    joint = counts.reshape(unknown + 1, unknown + 1)
    if labels.ignore is not None:
        joint[labels.ignore] = 0
    return joint


def dice(joint: np.ndarray, values: Sequence[int]) -> float | None:
    """Return the Dice of one target from `joint_counts`; None when neither map holds it."""
    return _ratio(
        2 * _inside(joint, values), joint[list(values)].sum() + joint[:, list(values)].sum()
    )


def summarise(cases: Sequence[Mapping[str, Any]], name: str = "", task: str = "") -> dict[str, Any]:
    """Return the summary.json document of evaluated cases, in v1's layout.

    Args:
        cases: Results of `evaluate_case`, each with the paths `test` and `reference` added.
        name: What was evaluated.
        task: Dataset name.
    """
    rows: dict[str, list[Mapping[str, float | None]]] = {}
    for case in cases:
        for key, metrics in case.items():
            if isinstance(metrics, Mapping):
                rows.setdefault(key, []).append(metrics)
    mean = {
        key: {metric: _mean([row[metric] for row in found]) for metric in found[0]}
        for key, found in rows.items()
    }
    document = {
        "author": "nnunet-core",
        "description": "",
        "name": name,
        "task": task,
        "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "results": {"all": list(cases), "mean": mean},
    }
    text = json.dumps(document, sort_keys=True).encode()
    return {"id": hashlib.md5(text, usedforsecurity=False).hexdigest()[:12], **document}


def mean_foreground_dice(summary: Mapping[str, Any]) -> float:
    """Return the mean over foreground labels or regions of `results.mean`; NaN when no Dice is
    defined.

    Summaries of v1 (bare NaN, entry `mean` of the selection command) are read too.
    """
    mean = summary["results"]["mean"]
    labels = {
        key: row
        for key, row in mean.items()
        if isinstance(row, Mapping) and key not in {"0", "-1", "mean"}
    }
    value = _mean([row["Dice"] for row in labels.values()])
    return math.nan if value is None else value


def evaluate_files(
    pairs: Sequence[tuple[Path, Path]],
    labels: Labels,
    image_format: ImageFormat,
    workers: Workers | None = None,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Compare (prediction, reference) label files; return the summary.json document.

    A prediction whose axes run otherwise than its reference's is turned to them. Values of
    predictions that no label has are a warning: they belong to no target.

    Raises:
        ImageError: A file cannot be read or holds no label map, or the two lie on different grids.
        DatasetError: A reference holds values that `labels` does not declare.
    """
    return summarise(
        [c.result for c in compare_files(pairs, labels, image_format, workers, report)]
    )


def compare_files(
    pairs: Sequence[tuple[Path, Path]],
    labels: Labels,
    image_format: ImageFormat,
    workers: Workers | None = None,
    report: Reporter | None = None,
    measure: Measure | None = None,
) -> list[Compared]:
    """Compare (prediction, reference) label files as `evaluate_files` does; return each with what
    `measure` finds besides.

    Args:
        pairs: Files.
        labels: What their values mean.
        image_format: Reads them.
        workers: Processes; the memory that each pair takes is estimated from its header.
        report: Where warnings go, and what counts the cases.
        measure: Called once per pair, in the process that holds it.

    Raises:
        ImageError, DatasetError: As `evaluate_files`.
    """
    compare = functools.partial(
        _compare, labels=labels, image_format=image_format, measure=measure or _nothing
    )
    pool, report = workers or Workers(), report or Silence()
    compared = []
    with report.track("compare", len(pairs)) as tracker:
        for found in pool.each(
            compare,
            pairs,
            cost=functools.partial(_bytes_of, image_format=image_format),
            name=lambda pair: pair[0].name,
        ):
            compared.append(found)
            tracker.advance(1, found.prediction.name)
    _warn_of_odd(compared, labels, report)
    return compared


def _warn_of_odd(compared: Sequence[Compared], labels: Labels, report: Reporter) -> None:
    """Name the predictions that hold unknown values, or whose axes run otherwise."""
    if strange := [f"{c.prediction} {c.undeclared}" for c in compared if c.undeclared]:
        report.warning(
            f"{counted(len(strange), 'prediction')} with values that no label has, which count as "
            f"wrong everywhere: {listed(strange)}. Declared: {sorted(labels.values)}."
        )
    if turned := [str(c.prediction) for c in compared if c.turned]:
        report.warning(
            f"{counted(len(turned), 'prediction')} with other axes than the reference, brought to "
            f"its axes by their place: {listed(turned)}."
        )


@dataclass(frozen=True)
class Compared:
    """A compared pair of label files.

    Attributes:
        prediction, reference: The files.
        scores: {target: its overlap metrics}.
        further: What was measured besides.
        undeclared: Values of the prediction that no label has.
        turned: Whether the axes of the prediction run otherwise than those of the reference.
    """

    prediction: Path
    reference: Path
    scores: dict[str, Metrics]
    further: dict[str, Metrics]
    undeclared: list[int]
    turned: bool

    @property
    def result(self) -> dict[str, Any]:
        """The case as `summarise` takes it."""
        return {**self.scores, "test": str(self.prediction), "reference": str(self.reference)}


def _nothing(*_: object) -> dict[str, Metrics]:
    return {}


def _bytes_of(pair: tuple[Path, Path], image_format: ImageFormat) -> int:
    """Estimate the memory that a pair takes; 0 where its header cannot be read."""
    try:
        return _BYTES_PER_VOXEL * math.prod(image_format.header(pair[1]).shape)
    except ImageError:  # reading it will say why
        return 0


def read_label_map(path: Path, image_format: ImageFormat) -> np.ndarray:
    """Read a label file to an integer array (Z, Y, X); see `read_label_image`."""
    return read_label_image(path, image_format).array[0]


def read_label_image(path: Path, image_format: ImageFormat) -> Image:
    """Read a label file to integers (1, Z, Y, X) with its geometry; whole numbers that are stored
    as floats are accepted.

    Raises:
        ImageError: Unreadable, more than one channel, or values that are no integers.
    """
    image = image_format.read(path)
    array = image.array
    if array.shape[0] != 1:
        raise ImageError(
            f"The label file {path} has {array.shape[0]} channels; a label map has one."
        )
    if array.dtype.kind in "iub":
        return image
    if not np.array_equal(array, np.rint(array)):  # also catches NaN
        raise ImageError(
            f"The label file {path} holds values that are no whole numbers; a label map holds "
            "integers. Is it an image, or are these probabilities?"
        )
    return Image(array.astype(np.int64), image.geometry)


def _compare(
    pair: tuple[Path, Path], labels: Labels, image_format: ImageFormat, measure: Measure
) -> Compared:
    predicted, true = (read_label_image(path, image_format) for path in pair)
    turned = brought_together(predicted, true, pair)
    joint = joint_counts(turned.array[0], true.array[0], labels)
    if joint[-1].any():
        raise DatasetError(
            f"The reference {pair[1]} holds the values {_undeclared(true, labels)[:10]}, which no "
            f"label has. Declared: {sorted(labels.values)}. References are label maps of the "
            "dataset itself, not images, nor label maps from before 'dataset convert --renumber'."
        )
    undeclared = _undeclared(predicted, labels)[:10] if joint[:, -1].any() else []
    further = measure(turned.array[0], true.array[0], true.geometry)
    is_turned = turned is not predicted
    return Compared(*pair, _scores(joint, labels), further, undeclared, is_turned)


def brought_together(predicted: Image, true: Image, pair: tuple[Path, Path]) -> Image:
    """Return a prediction with the axes of its reference.

    Raises:
        ImageError: Its voxels lie elsewhere.
    """
    turned = turned_like(predicted, true.geometry)
    details = true.geometry.contrast(turned.geometry, "reference", "prediction")
    if not details:
        return turned
    raise ImageError(
        f"{pair[0]} cannot be compared with {pair[1]}: they lie on different grids: {details}. "
        "Resample the prediction to its reference, or copy the reference's geometry if only the "
        "header is wrong."
    )


def _undeclared(image: Image, labels: Labels) -> list[int]:
    return [int(value) for value in np.unique(image.array) if value not in labels.values]


def _scores(joint: np.ndarray, labels: Labels) -> dict[str, Metrics]:
    return {key: _metrics(joint, values) for key, values in targets(labels).items()}


def _known(array: np.ndarray, unknown: int) -> np.ndarray:
    values = array.astype(np.intp)
    values[(values < 0) | (values > unknown)] = unknown
    return values


def _inside(joint: np.ndarray, values: Sequence[int]) -> int:
    return int(joint[np.ix_(values, values)].sum())


def _metrics(joint: np.ndarray, values: Sequence[int]) -> Metrics:
    both = _inside(joint, values)
    false_positive = int(joint[:, list(values)].sum()) - both
    false_negative = int(joint[list(values)].sum()) - both
    neither = int(joint.sum()) - both - false_positive - false_negative
    precision, recall = _ratio(both, both + false_positive), _ratio(both, both + false_negative)
    negative_rate = _ratio(neither, neither + false_positive)
    omission = _ratio(false_negative, false_negative + neither)
    return {
        "Accuracy": _ratio(both + neither, both + neither + false_positive + false_negative),
        "Dice": _ratio(2 * both, 2 * both + false_positive + false_negative),
        "False Discovery Rate": _complement(precision),
        "False Negative Rate": _complement(recall),
        "False Omission Rate": omission,
        "False Positive Rate": _complement(negative_rate),
        "Jaccard": _ratio(both, both + false_positive + false_negative),
        "Negative Predictive Value": _complement(omission),
        "Precision": precision,
        "Recall": recall,
        "Total Positives Reference": both + false_negative,
        "Total Positives Test": both + false_positive,
        "True Negative Rate": negative_rate,
    }


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _complement(value: float | None) -> float | None:
    return None if value is None else 1 - value


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(defined)) if defined else None
