"""What the scores of a benchmark show: each dataset, comparisons with the baseline, a ranking over
datasets, and what to take home in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnunet_builtin.judging.costs import Cost
from nnunet_builtin.judging.rows import (
    CRASHED,
    MEAN,
    METRICS,
    TEST,
    Complete,
    Row,
    complete,
    scores_of,
)
from nnunet_builtin.statistics import words
from nnunet_builtin.statistics.comparison import Comparison, compare, corrected
from nnunet_builtin.statistics.intervals import mean_interval
from nnunet_builtin.statistics.ranking import (
    ENOUGH_DATASETS,
    Overall,
    Ranking,
    practically_better,
    rank_dataset,
    rank_overall,
    suitability,
)
from nnunet_builtin.statistics.scores import Scores
from nnunet_core.errors import listed

#: (dataset, configuration): what a table is of.
Subject = tuple[str, str]
Interval = tuple[float, float]
_Key = tuple[str, str, str, str]  # dataset, configuration, metric, label


@dataclass(frozen=True)
class Failures:
    """Scores that are the worst there is, each of one label, case and seed.

    Attributes:
        missed: Structures that no prediction has.
        false: Structures that only the prediction has.
        crashed: Of trainings that failed.
    """

    missed: int = 0
    false: int = 0
    crashed: int = 0


@dataclass(frozen=True)
class Judged:
    """One metric of one label, or of the mean over labels, of one configuration on one dataset.

    Attributes:
        dataset, configuration, label, metric: What is judged.
        scores: {variant: its scores}, of the seeds that are complete; distances are negative.
        folds: How many folds a seed has; 0 of a test set.
        intervals: {variant: interval of the mean over cases, in the unit of the metric, or None;
            and why there is none}.
        failures: {variant: its missed, false and crashed scores}; of the mean, those of all labels.
        comparisons: {variant: beside the baseline, Holm-corrected}; empty where the baseline is not
            complete.
        ranking: None of one variant.
        separates: See `ranking.suitability`: a ratio, or None and why there is none.
    """

    dataset: str
    configuration: str
    label: str
    metric: str
    scores: Mapping[str, Scores]
    folds: int
    intervals: Mapping[str, tuple[Interval | None, str]]
    failures: Mapping[str, Failures]
    comparisons: Mapping[str, Comparison]
    ranking: Ranking | None
    separates: tuple[float | None, str]

    @property
    def cases(self) -> int:
        """How many cases there are."""
        return len(next(iter(self.scores.values())).cases)

    @property
    def seeds(self) -> int:
        """How many seeds the variant with the fewest has."""
        return min(scores.seeds for scores in self.scores.values())

    @property
    def unit(self) -> words.Unit:
        """How differences are told."""
        return words.POINTS if METRICS[self.metric][0] else words.MILLIMETRES

    def mean(self, variant: str) -> float:
        """Return the mean of a variant, in the unit of the metric."""
        return abs(self.scores[variant].mean)

    @property
    def order(self) -> tuple[str, ...]:
        """The variants, the best first."""
        return tuple(self.ranking.means if self.ranking is not None else self.scores)


@dataclass(frozen=True)
class OverDatasets:
    """The mean over labels, over datasets, each of which counts once.

    Attributes:
        configuration: Of all of them; empty where each dataset has one, whatever it is called.
        overall: The ranking.
        practical: {variant: probabilities of worse, practically equal, better than the baseline on
            another dataset}; of those with a finite mean on every dataset.
        seeds: How many the variant with the fewest has, on any of them.
        unit: How differences are told.
        left_out: Variants and datasets that are not compared: not complete together.
    """

    configuration: str
    overall: Overall
    practical: Mapping[str, tuple[float, float, float]]
    seeds: int = 0
    unit: words.Unit = words.POINTS
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """All of a benchmark.

    Attributes:
        baseline: Name of the variant that others are compared with.
        rope: Below this, differences are practically none.
        judged: Of every dataset, configuration, metric and label.
        over_datasets: Empty where no two datasets and variants are complete.
        deviations: {(dataset, configuration): sentences for the head of its tables}.
        costs: Of every variant.
    """

    baseline: str
    rope: float
    judged: tuple[Judged, ...]
    over_datasets: tuple[OverDatasets, ...] = ()
    deviations: Mapping[Subject, tuple[str, ...]] = field(default_factory=dict)
    costs: tuple[Cost, ...] = ()

    @property
    def main(self) -> tuple[Judged, ...]:
        """What the summary speaks of: the first metric, the mean over labels."""
        first = next((each.metric for each in self.judged), "")
        return tuple(e for e in self.judged if (e.label, e.metric) == (MEAN, first))


def judge(
    rows: Sequence[Row],
    baseline: str,
    rope: float,
    deviations: Mapping[Subject, tuple[str, ...]] | None = None,
    costs: Sequence[Cost] = (),
) -> Judgement:
    """Judge the scores that are complete.

    Args:
        rows: All scores.
        baseline: Name of a variant.
        rope: Differences below this are practically none.
        deviations: See Judgement.
        costs: See Judgement.
    """
    groups: dict[_Key, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.configuration, row.metric, row.label), []).append(row)
    kept = {key: found for key, mine in groups.items() if (found := complete(mine))}
    judged = tuple(_judged(key, kept, baseline) for key in kept)
    over = tuple(_over_datasets(judged, baseline, rope))
    return Judgement(baseline, rope, judged, over, deviations or {}, tuple(costs))


def _judged(key: _Key, kept: Mapping[_Key, Complete], baseline: str) -> Judged:
    scores = scores_of(kept[key], key[2])
    base = scores.get(baseline)
    others = {name: each for name, each in scores.items() if name != baseline}
    says = any(not np.isnan(each.values).all() for each in scores.values())
    comparisons = {n: compare(s, base) for n, s in others.items()} if base and says else {}
    dataset, configuration, metric, label = key
    return Judged(
        dataset=dataset,
        configuration=configuration,
        label=label,
        metric=metric,
        scores=scores,
        folds=_folds(kept[key]),
        intervals={name: _interval(each) for name, each in scores.items()},
        failures=_failures(key, kept),
        comparisons=corrected(comparisons),
        ranking=rank_dataset(scores) if len(scores) > 1 and says else None,
        separates=suitability(scores) if says else (None, "no case has a score"),
    )


def _folds(rows: Complete) -> int:
    return len({row.fold for variant in rows for row in _rows(rows, variant)} - {""})


def _rows(rows: Complete, variant: str) -> Iterator[Row]:
    for cases in rows.get(variant, {}).values():
        for mine in cases.values():
            yield from mine


def _interval(scores: Scores) -> tuple[Interval | None, str]:
    values = scores.per_case[~np.isnan(scores.per_case)]
    if not len(values):
        return None, "undefined in every case"
    return mean_interval(np.abs(values))  # distances are negative


def _failures(key: _Key, kept: Mapping[_Key, Complete]) -> dict[str, Failures]:
    """Return {variant: its failures} of a label; of the mean, those of all labels."""
    parts = [k for k in kept if k[:3] == key[:3] and k[3] != MEAN] if key[3] == MEAN else [key]
    found = {}
    for variant in kept[key]:
        counts = Counter(_failed(row) for part in parts for row in _rows(kept[part], variant))
        found[variant] = Failures(counts["missed"], counts["false"], counts[CRASHED])
    return found


def _failed(row: Row) -> str:
    """Return the status of a row; of a foreign one that says nothing, what its value tells."""
    is_worst = row.value is not None and row.value == METRICS[row.metric][1]
    return row.status or ("missed" if is_worst else "")


def _over_datasets(judged: Sequence[Judged], baseline: str, rope: float) -> Iterator[OverDatasets]:
    """Yield the rankings over datasets: one of all, where each dataset has one configuration; else
    one of each configuration, so that no dataset counts twice. Test sets are apart.
    """
    first = judged[0].metric if judged else ""
    main = [e for e in judged if (e.label, e.metric) == (MEAN, first) and e.ranking is not None]
    trained = [each for each in main if each.configuration != TEST]
    configurations = dict.fromkeys(each.configuration for each in trained)
    groups = {name: [e for e in trained if e.configuration == name] for name in configurations}
    if len({each.dataset for each in trained}) == len(trained):
        groups = {"": trained}
    groups[TEST] = [each for each in main if each.configuration == TEST]
    for name, group in groups.items():
        means = _means(group)
        if len(means) > 1 and len(next(iter(means.values()))) > 1:
            yield OverDatasets(
                configuration=name,
                overall=rank_overall(means),
                practical=_practical(means, baseline, rope, _infinite(group)),
                seeds=min(e.scores[n].seeds for e in group for n in means if n in e.scores),
                unit=group[0].unit,
                left_out=_left_out(group, means),
            )


def _means(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Return {variant: {dataset: mean}} of the variants that are complete on the most datasets, and
    of the datasets where all of them are.
    """
    if not judged:
        return {}
    counts = Counter(name for each in judged for name in each.scores)
    names = [name for name, count in counts.items() if count == max(counts.values())]
    full = [e for e in judged if e.scores.keys() >= set(names) and e.ranking is not None]
    return {n: {e.dataset: e.ranking.means[n] for e in full if e.ranking} for n in names}


def _left_out(
    judged: Sequence[Judged], means: Mapping[str, Mapping[str, float]]
) -> tuple[str, ...]:
    names = dict.fromkeys(name for each in judged for name in each.scores)
    datasets = dict.fromkeys(each.dataset for each in judged)
    compared = next(iter(means.values()))
    return (*(n for n in names if n not in means), *(d for d in datasets if d not in compared))


def _practical(
    means: Mapping[str, Mapping[str, float]], baseline: str, rope: float, infinite: set[str]
) -> dict[str, tuple[float, float, float]]:
    base = means.get(baseline)
    if base is None or baseline in infinite:
        return {}
    return {
        name: practically_better([found[d] for d in base], list(base.values()), rope)
        for name, found in means.items()
        if name not in {baseline, *infinite}
    }


def _infinite(judged: Sequence[Judged]) -> set[str]:
    """Return the variants whose mean is infinite somewhere: no difference from it has a size."""
    return {name for each in judged for name in each.scores if np.isinf(each.mean(name))}


def summary(judgement: Judgement) -> list[str]:
    """Return what a reader should take home, a sentence each. It speaks of the first metric, and of
    the mean over labels; everything else is in the tables.
    """
    lines = []
    for each in judgement.main:
        place = f"{each.dataset}, {each.configuration}"
        for name, comparison in each.comparisons.items():
            said = words.about_method(comparison, each.metric, each.unit)
            lines.append(f"{place}: {name} against {judgement.baseline}: {said}.")
        if len(each.scores) > 1:
            lines.append(f"{place}: {words.about_suitability(*each.separates)}.")
        if warning := words.about_cases(each.cases):
            lines.append(f"{place}: {warning}.")
    for over in judgement.over_datasets:
        where = f" ({over.configuration})" if over.configuration else ""
        few = words.about_seeds(over.seeds)
        lines.append(f"Over datasets{where}: {words.about_datasets(over.overall)}{few}.")
        if over.left_out:
            lines.append(f"Over datasets{where}: not complete, left out: {listed(over.left_out)}.")
        if len(over.overall.datasets) < ENOUGH_DATASETS:
            continue  # of few datasets probabilities say more than these know
        for name, probabilities in over.practical.items():
            said = words.about_practice(probabilities, judgement.rope, over.unit) + few
            lines.append(f"Another dataset{where}, {name} against {judgement.baseline}: {said}.")
    return lines
