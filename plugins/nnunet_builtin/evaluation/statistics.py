"""Metrics of cases summed up label by label: means with bootstrap intervals, medians, counts, and
which cases are worst.

A mean over cases of which one is infinite (HD95 of a missed label) is infinite: leaving it out
would make the mean better with each further miss. The median takes infinite values as the
largest ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_builtin.evaluation.measuring import foreground_targets
from nnunet_builtin.evaluation.scores import Metric, badness, status_of
from nnunet_builtin.statistics.intervals import mean_interval
from nnunet_core.data.folders import without_ending
from nnunet_core.data.labels import Labels
from nnunet_core.errors import natural_order
from nnunet_core.stages.evaluate import Compared


@dataclass(frozen=True, eq=False)  # rows are keys, their scores are not
class Row:
    """One label of one case.

    Attributes:
        case: Its name.
        target: Label or region, as in summary.json.
        status: `found`, `missed`, `false` or `absent`, see `scores.status_of`.
        scores: {metric: value}, None where it is undefined; v1's metrics first.
    """

    case: str
    target: str
    status: str
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class Distribution:
    """One metric of one label over the cases where it is defined.

    Attributes:
        n: Number of these cases.
        n_infinite: How many of them are infinite.
        mean, median, minimum, maximum: None of no case.
        interval: Bootstrap interval (BCa) of the mean, or None.
        note: Why there is no interval.
    """

    n: int
    n_infinite: int
    mean: float | None = None
    median: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    interval: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class LabelStatistics:
    """One label or region over all cases.

    Attributes:
        name: For people.
        tolerance: mm, of the surface Dice.
        counts: {status: number of cases}.
        metrics: {metric: its distribution}.
        worst: Rows in which a map has the label, the worst first.
    """

    name: str
    tolerance: float
    counts: Mapping[str, int]
    metrics: Mapping[str, Distribution]
    worst: tuple[Row, ...]


def rows_of(compared: Sequence[Compared], labels: Labels, ending: str) -> list[Row]:
    """Return a row for each case and each label but the background."""
    rows = []
    for pair in compared:
        case = without_ending(pair.prediction.name, ending)
        for target in foreground_targets(labels):
            scores = {**pair.scores[target], **pair.further.get(target, {})}
            rows.append(Row(case, target, status_of(scores), scores))
    return rows


def summed_up(
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    labels: Labels,
    tolerances: Mapping[str, float],
) -> dict[str, LabelStatistics]:
    """Return {target: its statistics} of the rows of all cases."""
    found = {}
    for target in foreground_targets(labels):
        mine = [row for row in rows if row.target == target]
        statuses = [row.status for row in mine]
        found[target] = LabelStatistics(
            name=name_of(target, labels),
            tolerance=tolerances[target],
            counts={name: statuses.count(name) for name in ("found", "missed", "false", "absent")},
            metrics={m.name: distribution([row.scores[m.name] for row in mine]) for m in metrics},
            worst=worst_first(mine),
        )
    return found


def name_of(target: str, labels: Labels) -> str:
    """Return what people call a label or region of a summary."""
    return target if labels.regions else labels.names.get(int(target), f"label {target}")


def worst_first(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows in which a map has the label, the worst first; equals by their cases."""
    present = [row for row in rows if row.status != "absent"]
    by_name = sorted(present, key=lambda row: natural_order(row.case))
    return tuple(sorted(by_name, key=lambda row: badness(row.scores), reverse=True))


def distribution(values: Sequence[float | None]) -> Distribution:
    """Sum up one metric over cases; None is undefined, and left out."""
    defined = np.array([value for value in values if value is not None], float)
    infinite = int(np.isinf(defined).sum())
    if not len(defined):
        return Distribution(0, 0, note="undefined in every case")
    interval, note = mean_interval(defined)
    return Distribution(
        n=len(defined),
        n_infinite=infinite,
        mean=float(np.mean(defined)),
        median=float(np.median(defined)),
        minimum=float(defined.min()),
        maximum=float(defined.max()),
        interval=interval,
        note=note,
    )


def mean_over_labels(statistics: Mapping[str, LabelStatistics], metric: str) -> float | None:
    """Return the mean over labels of a metric's means; None where it is defined for none."""
    means = [label.metrics[metric].mean for label in statistics.values()]
    defined = [mean for mean in means if mean is not None]
    return float(np.mean(defined)) if defined else None
