"""Two variants on one dataset: whether their difference is more than noise, and noise of what.

Trainings of one method differ by their seed, so a claim about a *method* needs several of them:
seeds and cases are both samples, crossed, as readers and cases are in studies of readers (two-way
random effects). Tests over the cases of one training each speak about these networks alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunet_builtin.statistics.intervals import LEVEL
from nnunet_builtin.statistics.scores import Scores, paired

#: Fewer trainings of a variant than these say nothing about the method.
ENOUGH_SEEDS = 3
SIGNIFICANT = 1 - LEVEL


@dataclass(frozen=True)
class Comparison:
    """A variant beside a baseline on the same cases of one dataset.

    Attributes:
        cases: Number of cases that say something.
        seeds: Trainings of the variant, and of the baseline.
        difference: Mean of the variant minus that of the baseline; NaN where a score is infinite
            (the distance of a missed structure): only ranks compare these.
        interval: Of the difference between the methods, over seeds and cases; None of fewer than
            `ENOUGH_SEEDS` seeds each, of repeated ones, and of infinite scores.
        p_method: Of no difference between the methods, by the same model; None as `interval`.
        seed_spread: Standard deviation between the means of seeds, pooled; None of one seed each.
        p_networks: Wilcoxon signed-rank over cases: speaks about these trained networks. None
            where all cases are equal.
        effect: Matched-pairs rank-biserial correlation of these, -1 to 1; 0 where all are equal.
        false_claim: Probability that a claim "the one with the larger mean is better" is false,
            were the cases all there is to it (Christodoulou et al. 2025); None of one case.
        repeats: Seeds of the variant, and of the baseline, that gave the scores of another one in
            every case, as the same network would: they are no further sample of the method.
    """

    cases: int
    seeds: tuple[int, int]
    difference: float
    interval: tuple[float, float] | None
    p_method: float | None
    seed_spread: float | None
    p_networks: float | None
    effect: float
    false_claim: float | None
    repeats: tuple[int, int] = (0, 0)

    @property
    def says_method(self) -> bool:
        """Whether there are enough seeds to speak about the method."""
        return self.interval is not None

    @property
    def is_infinite(self) -> bool:
        """Whether only ranks compare the two, see `difference`."""
        return not np.isfinite(self.difference)

    @property
    def is_shown(self) -> bool:
        """Whether the methods are shown to differ."""
        return self.p_method is not None and self.p_method < SIGNIFICANT


def compare(candidate: Scores, baseline: Scores) -> Comparison:
    """Compare a variant with a baseline on the cases of one dataset.

    Raises:
        ValueError: The cases differ, or none of them says anything.
    """
    first, second = paired(candidate, baseline)
    if not first.size:
        raise ValueError("no case in which a variant or the reference has the label")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return _of_ranks(first, second)
    differences = first.mean(axis=0) - second.mean(axis=0)
    repeats = (candidate.repeats, baseline.repeats)
    interval, p_method = (None, None) if any(repeats) else _between_methods(first, second)
    p_networks, effect = _between_networks(differences)
    return Comparison(
        cases=first.shape[1],
        seeds=(len(first), len(second)),
        difference=float(differences.mean()),
        interval=interval,
        p_method=p_method,
        seed_spread=_seed_spread([first, second]),
        p_networks=p_networks,
        effect=effect,
        false_claim=false_claim(first.mean(axis=0), second.mean(axis=0)),
        repeats=repeats,
    )


def _of_ranks(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Compare scores of which some are minus infinity: only the order of differences counts."""
    means = np.stack([first.mean(axis=0), second.mean(axis=0)])
    known = means[np.isfinite(means)]
    # beyond every finite difference
    beyond = 3 * np.abs(known).max() + 1 if len(known) else 1.0
    means = np.where(np.isinf(means), -beyond, means)
    p_networks, effect = _between_networks(means[0] - means[1])
    seeds = (len(first), len(second))
    return Comparison(first.shape[1], seeds, np.nan, None, None, None, p_networks, effect, None)


def corrected(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Return comparisons with one baseline, their p-values corrected for their number (Holm)."""
    methods = {n: c.p_method for n, c in comparisons.items() if c.p_method is not None}
    networks = {n: c.p_networks for n, c in comparisons.items() if c.p_networks is not None}
    methods, networks = holm(methods), holm(networks)
    return {
        name: replace(each, p_method=methods.get(name), p_networks=networks.get(name))
        for name, each in comparisons.items()
    }


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values, adjusted by Holm's method."""
    if not values:
        return {}
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests(list(values.values()), method="holm")[1]
    return dict(zip(values, map(float, adjusted), strict=True))


def _between_methods(
    first: np.ndarray, second: np.ndarray
) -> tuple[tuple[float, float] | None, float | None]:
    """Return interval and p-value of the difference between methods: seeds and cases are random,
    degrees of freedom are Satterthwaite's.

    Args:
        first: Of the variant, (seeds, cases) without NaN.
        second: Of the baseline.
    """
    from scipy import stats

    if min(len(first), len(second)) < ENOUGH_SEEDS or first.shape[1] < 2:
        return None, None
    difference = float(first.mean() - second.mean())
    by_case = first.mean(axis=0) - second.mean(axis=0)
    parts = np.array(
        [
            first.mean(axis=1).var(ddof=1) / len(first),
            second.mean(axis=1).var(ddof=1) / len(second),
            by_case.var(ddof=1) / len(by_case),
        ]
    )
    freedoms = np.array([len(first) - 1, len(second) - 1, len(by_case) - 1])
    # each part holds the noise of single scores: seeds and cases together would count it twice
    noise = _noise(first) / first.size + _noise(second) / second.size
    variance = max(parts.sum() - noise, parts[:2].sum(), parts[2])
    if variance <= 0:
        return (difference, difference), float(difference == 0)
    # of this variance, not of `parts.sum()`: noise that counts twice is no certainty
    freedom = variance**2 / (parts**2 / freedoms).sum()
    error = np.sqrt(variance)
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
    p = 2 * stats.t.sf(abs(difference) / error, freedom)
    return (difference - float(half), difference + float(half)), float(p)


def _noise(values: np.ndarray) -> float:
    """Return the variance of what neither seed nor case explains, of (seeds, cases)."""
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return float((rest**2).sum() / ((values.shape[0] - 1) * (values.shape[1] - 1)))


def _seed_spread(arrays: Sequence[np.ndarray]) -> float | None:
    """Return the pooled standard deviation between the means of seeds; None of one seed each."""
    groups = [array.mean(axis=1) for array in arrays if len(array) > 1]
    if not groups:
        return None
    squares = sum(((group - group.mean()) ** 2).sum() for group in groups)
    return float(np.sqrt(squares / sum(len(group) - 1 for group in groups)))


def _between_networks(differences: np.ndarray) -> tuple[float | None, float]:
    """Return p of the Wilcoxon signed-rank test and the rank-biserial correlation."""
    from scipy import stats

    different = differences[differences != 0]
    if not len(different):
        return None, 0.0
    ranks = stats.rankdata(np.abs(different))
    effect = float((ranks * np.sign(different)).sum() / ranks.sum())
    return float(stats.wilcoxon(different).pvalue), effect


def false_claim(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the probability that "the one with the larger mean is better" is false.

    It is that of Student's t with n - 1 degrees of freedom beyond the difference of the means over
    its standard error, from paired scores (Christodoulou et al. 2025, arXiv 2505.04720).

    Args:
        first: One score a case, (cases,).
        second: Those of the other, of the same cases.
    """
    from scipy import stats

    differences = first - second
    if len(differences) < 2:
        return None
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    if error == 0:
        return 0.5 if differences.mean() == 0 else 0.0
    return float(stats.t.sf(abs(differences.mean()) / error, len(differences) - 1))
