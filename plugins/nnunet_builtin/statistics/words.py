"""Sentences that say what numbers show, and what they speak about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_builtin.statistics.comparison import ENOUGH_SEEDS, SIGNIFICANT, Comparison
from nnunet_builtin.statistics.intervals import FEW_CASES
from nnunet_builtin.statistics.ranking import ENOUGH_DATASETS, Overall
from nnunet_core.errors import counted

ONE_RUN = "one run each: says nothing about the method"


@dataclass(frozen=True)
class Unit:
    """How differences of a metric are told.

    Attributes:
        name: Behind the number.
        scale: What a difference of scores, of which larger is better, is multiplied by.
        one: Behind the number 1.
    """

    name: str
    scale: float
    one: str

    def signed(self, value: float) -> str:
        """Return a difference as people read it."""
        return f"{self.of(value):+.2f}"

    def of(self, value: float) -> float:
        """Return a difference in this unit."""
        return self.scale * value

    def size(self, value: float) -> str:
        """Return the size of a difference with the unit behind it."""
        number = f"{abs(self.of(value)):g}"
        return f"{number} {self.one if number == '1' else self.name}"

    def interval(self, interval: tuple[float, float]) -> tuple[float, float]:
        """Return both ends in this unit, the lower one first."""
        low, high = sorted(map(self.of, interval))
        return low, high


#: Hundredths of Dice, as papers write it.
POINTS = Unit("points", 100.0, "point")
#: Of distances, whose scores are negative: less is better.
MILLIMETRES = Unit("mm", -1.0, "mm")


def about_method(comparison: Comparison, metric: str = "Dice", unit: Unit = POINTS) -> str:
    """Return what a comparison shows about two methods."""
    if comparison.is_infinite:
        return f"{metric} is infinite in some cases (missed structures): only ranks compare it"
    difference = f"difference {unit.signed(comparison.difference)} {metric} {unit.name}"
    seeds = min(comparison.seeds)
    if seeds == 1:
        return f"{difference}; {ONE_RUN}"
    if any(comparison.repeats):
        return f"{difference}; {_of_repeats(comparison)}: says nothing about the method"
    spread = f"spread between seeds {abs(unit.of(comparison.seed_spread or 0.0)):.2f}"
    if comparison.interval is None:
        return (
            f"{difference}, {spread}; {seeds} seeds, below {ENOUGH_SEEDS}: says nothing about the "
            "method"
        )
    low, high = unit.interval(comparison.interval)
    verdict = verdict_of(comparison)
    if comparison.is_shown:
        verdict = f"shown to be {verdict} on this dataset ({p_value(comparison.p_method)})"
    return f"{difference}, {spread}, 95 % interval {low:+.2f} to {high:+.2f}: {verdict}"


def _of_repeats(comparison: Comparison) -> str:
    """Return whose seeds are no further sample of the method."""
    told = []
    whose = ("the variant", "the baseline")
    for who, seeds, repeats in zip(whose, comparison.seeds, comparison.repeats, strict=True):
        if repeats:
            which = "the" if repeats == seeds - 1 else f"{repeats + 1} of the"
            told.append(f"{which} {seeds} seeds of {who}")
    return f"{' and '.join(told)} gave one and the same network (the same score in every case)"


def verdict_of(comparison: Comparison) -> str:
    """Return what is shown about the methods in a word or two, for a table."""
    if not comparison.says_method:
        return "says nothing"
    if not comparison.is_shown:
        return "not shown to be real"
    return "better" if comparison.difference > 0 else "worse"


def about_networks(seeds: int, folds: int) -> str:
    """Return which networks a test over cases speaks about."""
    trained = counted(seeds, "seed")
    if folds > 1:
        trained += f" of {folds} folds"
    return (
        "p over cases: Wilcoxon's signed-rank test, Holm over the variants. Cases of one training "
        f"share a network, so it speaks about these networks only ({trained} of each variant), not "
        "about the method. P(false): that 'the larger mean is better' is false, were the cases all "
        "there is to it; 0.5 is a coin"
    )


def about_datasets(overall: Overall) -> str:
    """Return what the ranking over datasets shows."""
    n, names = len(overall.datasets), list(overall.mean_ranks)
    if n < ENOUGH_DATASETS:
        return (
            f"{counted(n, 'dataset')}, no test: the smallest p that Wilcoxon's test can reach with "
            f"{n} is {2 / 2**n:.2g}; it takes {ENOUGH_DATASETS} datasets to get below "
            f"{SIGNIFICANT:.2g}"
        )
    differing = [pair for pair, p in overall.p.items() if p < SIGNIFICANT]
    if not differing:
        return f"{n} datasets, no two variants are shown to differ (Wilcoxon, Holm)"
    pairs = "; ".join(
        f"{first} before {second} ({p_value(overall.p[first, second])})"
        for first, second in differing
    )
    return f"{n} datasets, {len(names)} variants (Wilcoxon, Holm): {pairs}"


def about_seeds(seeds: int) -> str:
    """Return what too few seeds leave unsaid, to be appended to a sentence; empty otherwise."""
    if seeds >= ENOUGH_SEEDS:
        return ""
    few = ONE_RUN if seeds == 1 else f"{seeds} seeds: says nothing about the methods"
    return f"; {few}"


def about_practice(
    probabilities: tuple[float, float, float], rope: float, unit: Unit = POINTS
) -> str:
    """Return how a variant will probably do on a further dataset, told from these."""
    worse, equal, better = (f"{probability:.1%}" for probability in probabilities)
    if not rope:
        return f"probably worse {worse}, better {better}"
    return (
        f"probably worse {worse}, practically equal (within {unit.size(rope)}) {equal}, better "
        f"{better}"
    )


def about_rope(rope: float, datasets: int, unit: Unit = POINTS) -> str:
    """Return what the probabilities of `about_practice` rest on."""
    told = "Worse, practically equal, better: probabilities for another dataset beside the "
    told += "baseline, Bayesian signed-rank test. "
    if rope:
        told += f"Differences within {unit.size(rope)} (rope) are practically none"
    else:
        told += "No difference is practically none (rope = 0)"
    if datasets < ENOUGH_DATASETS:
        told += f". From {counted(datasets, 'dataset')}, which is too few to rely on"
    return told


def about_orders(tau: float) -> str:
    """Return how two orders of the same variants agree."""
    if np.isnan(tau):
        return "has no value: in one of them all variants share a rank"
    return f"{tau:.2f}"


def about_suitability(ratio: float | None, why: str = "") -> str:
    """Return whether a dataset can separate the variants, or why nobody knows."""
    if ratio is None:
        return f"whether this dataset can separate the variants is not known: {why}"
    verdict = "can separate" if ratio >= 1 else "cannot separate"
    return (
        f"this dataset {verdict} the variants: their spread is {ratio:.2f} times that between seeds"
    )


def about_cases(cases: int) -> str:
    """Return a warning where a mean is over few cases; empty otherwise."""
    if cases >= FEW_CASES:
        return ""
    return f"{counted(cases, 'case')}, below {FEW_CASES}: intervals are too narrow"


def p_value(value: float | None) -> str:
    """Return `p = 0.012`."""
    if value is None:
        return "no p"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
