"""Sentences that say what numbers show, and what they speak about."""

from __future__ import annotations

from nnunet_builtin.statistics.comparison import ENOUGH_SEEDS, SIGNIFICANT, Comparison
from nnunet_builtin.statistics.intervals import FEW_CASES
from nnunet_builtin.statistics.ranking import ENOUGH_DATASETS, Overall
from nnunet_core.errors import counted

ONE_RUN = "one run each: says nothing about the method"


def about_method(comparison: Comparison, metric: str = "Dice") -> str:
    """Return what a comparison shows about two methods, in points (hundredths)."""
    difference = f"difference {_points(comparison.difference)} {metric} points"
    seeds = min(comparison.seeds)
    if seeds == 1:
        return f"{difference}; {ONE_RUN}"
    spread = f"spread between seeds {_points(comparison.seed_spread or 0.0, sign=False)}"
    if comparison.interval is None:
        return (
            f"{difference}, {spread}; {counted(seeds, 'seed')} of at least {ENOUGH_SEEDS}: says "
            "nothing about the method"
        )
    low, high = comparison.interval
    interval = f"95 % interval {_points(low)} to {_points(high)}"
    verdict = "not shown to be real"
    if comparison.is_shown:
        verdict = "better" if comparison.difference > 0 else "worse"
        verdict = f"shown to be {verdict} on this dataset ({_p(comparison.p_method)})"
    return f"{difference}, {spread}, {interval}: {verdict}"


def about_networks(comparison: Comparison) -> str:
    """Return what the test over cases shows, and that it speaks about these networks."""
    seeds = sum(comparison.seeds)
    who = "these two networks" if seeds == 2 else f"these {seeds} trainings"
    if comparison.p_networks is None:
        return f"equal in every case, of {who}"
    differ = "differ" if comparison.p_networks < SIGNIFICANT else "are not shown to differ"
    return (
        f"over {counted(comparison.cases, 'case')}, {who} {differ} (Wilcoxon, Holm: "
        f"{_p(comparison.p_networks)}, effect {comparison.effect:+.2f}); cases of one training "
        "share a network, so this says nothing about other trainings"
    )


def about_datasets(overall: Overall) -> str:
    """Return what the ranking over datasets shows."""
    n, names = len(overall.datasets), list(overall.mean_ranks)
    if n < ENOUGH_DATASETS:
        least = 2 / 2**n
        return (
            f"{counted(n, 'dataset')}: no test over datasets can show a difference. The smallest p "
            f"that Wilcoxon's test can reach with {n} is {least:.2g}; it takes {ENOUGH_DATASETS}."
        )
    differing = [pair for pair, p in overall.p.items() if p < SIGNIFICANT]
    if not differing:
        return f"over {n} datasets no two variants are shown to differ (Wilcoxon, Holm)"
    pairs = "; ".join(
        f"{first} before {second} ({_p(overall.p[first, second])})" for first, second in differing
    )
    return f"over {n} datasets, of {len(names)} variants (Wilcoxon, Holm): {pairs}"


def about_suitability(ratio: float | None) -> str:
    """Return whether a dataset can separate the variants."""
    if ratio is None:
        return "one seed each: whether this dataset separates the variants is not known"
    verdict = "can separate" if ratio >= 1 else "cannot separate"
    return f"{verdict} them: the spread between variants is {ratio:.1f} times that between seeds"


def about_cases(cases: int) -> str:
    """Return a warning where a mean is over few cases; empty otherwise."""
    if cases >= FEW_CASES:
        return ""
    return f"{counted(cases, 'case')}: below {FEW_CASES}, intervals are too narrow"


def _points(value: float, sign: bool = True) -> str:
    return f"{100 * value:{'+' if sign else ''}.2f}"


def _p(value: float | None) -> str:
    return "p < 0.001" if value is not None and value < 0.001 else f"p = {value:.3f}"
