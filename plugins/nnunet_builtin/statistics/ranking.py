"""Which variant comes first: on the cases of one dataset, and over several datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nnunet_builtin.statistics.comparison import SIGNIFICANT, holm
from nnunet_builtin.statistics.intervals import SEED
from nnunet_builtin.statistics.scores import Scores
from nnunet_core.errors import listed

#: Of n datasets the smallest two-sided p-value of Wilcoxon's test is 2 / 2**n: 0.06 of five.
ENOUGH_DATASETS = 6
SAMPLES = 1000
_BAYES_SAMPLES = 50_000
#: What an infinite distance counts as, mm: who misses more structures ranks behind.
_FARTHEST = 1e6


@dataclass(frozen=True)
class Ranking:
    """The variants on the cases of one dataset, and how stable their order is.

    Attributes:
        means: {variant: mean of its scores as `filled` has them}, the best first.
        ranks: {variant: rank of its mean}; 1 is best, equals share the mean of their ranks.
        case_ranks: {variant: mean of its ranks in the single cases}, the other order of
            aggregation.
        tau: Kendall's tau between both orders; NaN of one variant.
        shares: {variant: share of the bootstrap samples in which it has rank 1, 2 ...}.
    """

    means: Mapping[str, float]
    ranks: Mapping[str, float]
    case_ranks: Mapping[str, float]
    tau: float
    shares: Mapping[str, tuple[float, ...]]


def rank_dataset(scores: Mapping[str, Scores]) -> Ranking:
    """Rank the variants of one dataset by their means over seeds and cases; undefined scores are
    those of `filled`.
    """
    arrays = filled(scores)
    means = {name: float(array.mean()) for name, array in arrays.items()}
    names = sorted(means, key=lambda name: -means[name])
    ranks = ranked({name: means[name] for name in names})
    per_case = _descending(np.stack([arrays[name].mean(axis=0) for name in names]))
    case_ranks = dict(zip(names, map(float, per_case.mean(axis=1)), strict=True))
    return Ranking(
        means={name: means[name] for name in names},
        ranks=ranks,
        case_ranks=case_ranks,
        tau=agreement(ranks, case_ranks),
        shares=_bootstrap_shares({name: arrays[name] for name in names}),
    )


def filled(scores: Mapping[str, Scores]) -> dict[str, np.ndarray]:
    """Return the scores (seeds, cases) of variants on cases that say something, see
    `scores.paired`; all finite.

    Raises:
        ValueError: The cases differ, or none says anything.
    """
    if len({each.cases for each in scores.values()}) != 1:
        raise ValueError("scores of different cases cannot be ranked")
    defined = ~np.isnan(np.concatenate([each.values for each in scores.values()])).all(axis=0)
    if not defined.any():
        raise ValueError("no case in which a variant or the reference has the label")
    return {
        name: np.nan_to_num(each.values, nan=each.best, neginf=-_FARTHEST)[:, defined]
        for name, each in scores.items()
    }


def ranked(means: Mapping[str, float]) -> dict[str, float]:
    """Return {variant: rank}, 1 for the largest mean; equals share the mean of their ranks."""
    ranks = _descending(np.array(list(means.values()))[:, None])[:, 0]
    return dict(zip(means, map(float, ranks), strict=True))


def agreement(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return Kendall's tau (b) between two rankings of the same variants; NaN of one variant."""
    from scipy import stats

    names = list(first)
    return float(stats.kendalltau([first[n] for n in names], [second[n] for n in names]).statistic)


def _bootstrap_shares(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[float, ...]]:
    """Return how often each variant has each rank when seeds and cases are drawn anew.

    Equals share a rank by halves or thirds, so that a variant beside itself is first in half of
    the samples.
    """
    rng = np.random.default_rng(SEED)
    cases = next(iter(arrays.values())).shape[1]
    drawn = _counts(rng, cases)
    means = np.stack(
        [np.einsum("rs,sc,rc->r", _counts(rng, len(a)), a, drawn) for a in arrays.values()]
    ).round(12)  # sums of the same numbers in another order are equal
    low, high = _descending(means, "min"), _descending(means, "max")
    places = np.arange(1, len(arrays) + 1)
    share = (low[..., None] <= places) & (places <= high[..., None])
    shares = (share / share.sum(axis=-1, keepdims=True)).mean(axis=1)
    return {name: tuple(map(float, row)) for name, row in zip(arrays, shares, strict=True)}


def _counts(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return how often each of n is drawn, as shares, of bootstrap samples: (samples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), SAMPLES) / n


def _descending(values: np.ndarray, ties: str = "average") -> np.ndarray:
    """Return ranks along the first axis, 1 for the largest."""
    from scipy import stats

    return np.asarray(stats.rankdata(-values, method=ties, axis=0))


@dataclass(frozen=True)
class Overall:
    """The variants over datasets, each of which counts the same.

    Attributes:
        datasets: Their names.
        mean_ranks: {variant: mean of its ranks in the datasets}, the best first: ranked, then
            averaged.
        rank_of_means: {variant: rank of the mean of its scores}: averaged, then ranked.
        tau: Kendall's tau between both orders.
        p: {(variant, variant): Wilcoxon over datasets, Holm-adjusted}; empty below
            `ENOUGH_DATASETS`.
        cliques: Groups of variants, next to each other in rank, of which no two are shown to
            differ; empty below `ENOUGH_DATASETS`.
        without: {dataset left out: Kendall's tau with the whole ranking, and who is first}.
    """

    datasets: tuple[str, ...]
    mean_ranks: Mapping[str, float]
    rank_of_means: Mapping[str, float]
    tau: float
    p: Mapping[tuple[str, str], float]
    cliques: tuple[tuple[str, ...], ...]
    without: Mapping[str, tuple[float, str]]


def rank_overall(means: Mapping[str, Mapping[str, float]]) -> Overall:
    """Rank variants over datasets.

    Args:
        means: {variant: {dataset: mean score}}, the same datasets for all.
    """
    datasets = tuple(next(iter(means.values())))
    found = _mean_ranks(means, datasets)
    names = sorted(found, key=lambda name: found[name])
    mean_ranks = {name: found[name] for name in names}
    overall_means = {n: float(np.mean([means[n][d] for d in datasets])) for n in names}
    rank_of_means = ranked(overall_means)
    p = _pairwise(means, names, datasets)
    return Overall(
        datasets=datasets,
        mean_ranks=mean_ranks,
        rank_of_means=rank_of_means,
        tau=agreement(mean_ranks, rank_of_means),
        p=p,
        cliques=_cliques(names, p),
        without=_without_each(means, datasets, mean_ranks),
    )


def _mean_ranks(
    means: Mapping[str, Mapping[str, float]], datasets: Sequence[str]
) -> dict[str, float]:
    """Return {variant: mean of its ranks in these datasets}."""
    each = [ranked({name: means[name][dataset] for name in means}) for dataset in datasets]
    return {name: float(np.mean([ranks[name] for ranks in each])) for name in means}


def _pairwise(
    means: Mapping[str, Mapping[str, float]], names: Sequence[str], datasets: Sequence[str]
) -> dict[tuple[str, str], float]:
    from scipy import stats

    if len(datasets) < ENOUGH_DATASETS:
        return {}
    found = {}
    for first, second in combinations(names, 2):
        differences = np.array([means[first][d] - means[second][d] for d in datasets])
        same = not differences.any()
        found[f"{first}\0{second}"] = 1.0 if same else float(stats.wilcoxon(differences).pvalue)
    return {tuple(pair.split("\0")): p for pair, p in holm(found).items()}  # type: ignore[misc]


def _cliques(
    names: Sequence[str], p: Mapping[tuple[str, str], float]
) -> tuple[tuple[str, ...], ...]:
    """Return the largest runs of neighbours of which no pair differs (pairwise tests, not
    Nemenyi's: whether two differ does not depend on who else takes part).
    """
    if not p:
        return ()
    runs: list[tuple[int, int]] = []
    for start in range(len(names)):
        end = start + 1
        while end < len(names) and all(
            p[names[i], names[end]] >= SIGNIFICANT for i in range(start, end)
        ):
            end += 1
        if end - start > 1 and not (runs and end <= runs[-1][1]):
            runs.append((start, end))
    return tuple(tuple(names[start:end]) for start, end in runs)


def _without_each(
    means: Mapping[str, Mapping[str, float]], datasets: Sequence[str], whole: Mapping[str, float]
) -> dict[str, tuple[float, str]]:
    if len(datasets) < 3:  # with one left, nothing is averaged
        return {}
    found = {}
    for dataset in datasets:
        ranks = _mean_ranks(means, [other for other in datasets if other != dataset])
        found[dataset] = (agreement(whole, ranks), min(ranks, key=lambda name: ranks[name]))
    return found


def practically_better(
    candidate: Sequence[float], baseline: Sequence[float], rope: float
) -> tuple[float, float, float]:
    """Return the probabilities that a variant is worse than, practically equal to, and better than
    a baseline on a further dataset: Bayesian signed-rank test (Benavoli et al. 2017).

    Args:
        candidate: Mean score of each dataset.
        baseline: Those of the baseline, in the same order.
        rope: Differences below this are practically none; with 0 nothing is practically equal, and
            the probability of it is 0.
    """
    import baycomp

    if rope == 0 and not np.subtract(candidate, baseline).any():
        return 0.5, 0.0, 0.5  # the test takes the first one where both sides weigh the same
    found = baycomp.SignedRankTest.probs(
        np.asarray(baseline, float),
        np.asarray(candidate, float),
        rope=rope,
        nsamples=_BAYES_SAMPLES,
        random_state=SEED,
    )
    # without a region there is none between worse and better
    return float(found[0]), float(found[1]) if rope else 0.0, float(found[-1])


def suitability(scores: Mapping[str, Scores]) -> tuple[float | None, str]:
    """Return the spread between variants over the spread between their seeds: below 1 a dataset
    cannot separate them; or None, and why there is none.

    Both are standard deviations of means over cases.
    """
    if any(np.isinf(each.values).any() for each in scores.values()):
        return None, "distances are infinite in some cases (missed structures)"
    if repeating := [name for name, each in scores.items() if each.repeats]:
        return None, f"seeds gave one and the same network: {listed(repeating)}"
    means = (array.mean(axis=1) for array in filled(scores).values())
    groups = [group for group in means if len(group) > 1]
    if len(groups) < 2:
        return None, "it takes two seeds of each"
    within = np.sqrt(np.mean([group.var(ddof=1) for group in groups]))
    if within <= 0:
        return None, "the means of the seeds do not differ"
    return float(np.std([group.mean() for group in groups], ddof=1) / within), ""
