"""Scores of variants on the same cases, and what missing ones count as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Scores:
    """One variant on one dataset, one label and metric; larger is better, so distances are
    negative.

    Attributes:
        values: Float (seeds, cases); NaN where the metric is undefined: the case lacks the label,
            and the prediction does too. A missed structure and a case without a prediction have
            the worst value, 0 or minus infinity.
        cases: Their names, in the order of the second axis.
        best: The best value there is.
    """

    values: np.ndarray
    cases: tuple[str, ...]
    best: float = 1.0

    @cached_property
    def seeds(self) -> int:
        """Number of trainings that differ in their seed only."""
        return len(self.values)

    @cached_property
    def repeats(self) -> int:
        """How many seeds gave the scores of another one in every case. Cases do not count where the
        structure is found as well as can be, or not at all: there networks easily agree.
        """
        telling = np.isfinite(self.values) & (self.values != 0) & (self.values != self.best)
        rows = np.nan_to_num(self.values[telling.any(axis=1)], nan=self.best)
        return len(rows) - len(np.unique(rows, axis=0))

    @cached_property
    def mean(self) -> float:
        """The mean over cases where the metric is defined, then over seeds; NaN of none."""
        return float(_means(self.per_seed, axis=0))

    @cached_property
    def per_seed(self) -> np.ndarray:
        """The mean over cases of each seed, float (seeds,)."""
        return _means(self.values, axis=1)

    @cached_property
    def per_case(self) -> np.ndarray:
        """The mean over seeds of each case, float (cases,)."""
        return _means(self.values, axis=0)


def paired(candidate: Scores, baseline: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of two variants on the cases that they can be compared on.

    A case that lacks the label is right where the prediction lacks it, too: this counts as the
    best value beside the worst of one that invents it. Cases where nobody finds anything say
    nothing, and are left out.

    Returns:
        Two arrays of float, (seeds, cases) each, without NaN.

    Raises:
        ValueError: The cases differ.
    """
    if candidate.cases != baseline.cases:
        raise ValueError("scores of different cases cannot be compared")
    both = np.concatenate([candidate.values, baseline.values])
    defined = ~np.isnan(both).all(axis=0)
    filled = np.where(np.isnan(both), candidate.best, both)[:, defined]
    return filled[: candidate.seeds], filled[candidate.seeds :]


def same_cases(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """Return the scores of each variant on the cases that all of them have."""
    common = set.intersection(*(set(each.cases) for each in scores.values()))
    kept = {}
    for name, each in scores.items():
        places = [place for place, case in enumerate(each.cases) if case in common]
        kept[name] = Scores(each.values[:, places], tuple(each.cases[p] for p in places), each.best)
    return kept


def _means(values: np.ndarray, axis: int) -> np.ndarray:
    """Return means of what is defined, NaN where nothing is."""
    defined = ~np.isnan(values)
    count = np.asarray(defined.sum(axis=axis))
    total = np.asarray(np.where(defined, values, 0.0).sum(axis=axis))
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
