"""What the scores of a benchmark show: tables of each dataset, comparisons, a ranking, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_builtin.benchmark.matrix import Bench
from nnunet_builtin.benchmark.results import MEAN, Row, scores_of
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


@dataclass(frozen=True)
class Judged:
    """One label, or the mean over labels, of one configuration on one dataset.

    Attributes:
        dataset, configuration, label: What is judged.
        scores: {variant: its scores}, of the seeds that are complete.
        intervals: {variant: interval of the mean over cases, or None and why}.
        missed: {variant: scores of 0: missed or invented structures, crashed cases}.
        comparisons: {variant: beside the baseline, Holm-corrected}; empty where the baseline is not
            complete.
        ranking: None of one variant.
        separates: See `ranking.suitability`.
    """

    dataset: str
    configuration: str
    label: str
    scores: Mapping[str, Scores]
    intervals: Mapping[str, tuple[tuple[float, float] | None, str]]
    missed: Mapping[str, int]
    comparisons: Mapping[str, Comparison]
    ranking: Ranking | None
    separates: float | None

    @property
    def cases(self) -> int:
        """How many cases there are."""
        return len(next(iter(self.scores.values())).cases)


@dataclass(frozen=True)
class Judgement:
    """All of a benchmark.

    Attributes:
        baseline: Name of the variant that others are compared with.
        judged: Of every dataset, configuration and label.
        overall: Over datasets, of the mean over labels; None where no two datasets and variants are
            complete.
        practical: {variant: probabilities of worse, practically equal, better on another dataset}.
        rope: Below this, differences are practically none.
    """

    baseline: str
    judged: tuple[Judged, ...]
    overall: Overall | None
    practical: Mapping[str, tuple[float, float, float]]
    rope: float


def judge(bench: Bench, rows: Sequence[Row]) -> Judgement:
    """Judge the scores that are complete."""
    places = dict.fromkeys((row.dataset, row.configuration, row.label) for row in rows)
    judged = tuple(
        _judged(*place, scores, bench.baseline)
        for place in places
        if (scores := scores_of(rows, *place))
    )
    means = _means(judged)
    overall, practical = None, {}
    if len(means) > 1 and len(next(iter(means.values()))) > 1:
        overall = rank_overall(means)
        datasets = overall.datasets
        if base := means.get(bench.baseline):
            practical = {
                name: practically_better(
                    [found[d] for d in datasets], [base[d] for d in datasets], bench.rope
                )
                for name, found in means.items()
                if name != bench.baseline
            }
    return Judgement(bench.baseline, judged, overall, practical, bench.rope)


def _judged(
    dataset: str, configuration: str, label: str, scores: Mapping[str, Scores], baseline: str
) -> Judged:
    base = scores.get(baseline)
    others = {name: each for name, each in scores.items() if name != baseline}
    says = any(np.isfinite(each.values).any() for each in scores.values())
    comparisons = {n: compare(s, base) for n, s in others.items()} if base and says else {}
    return Judged(
        dataset=dataset,
        configuration=configuration,
        label=label,
        scores=scores,
        intervals={name: _interval(each) for name, each in scores.items()},
        missed={name: int((each.values == 0).sum()) for name, each in scores.items()},
        comparisons=corrected(comparisons),
        ranking=rank_dataset(scores) if len(scores) > 1 and says else None,
        separates=suitability(scores) if says else None,
    )


def _interval(scores: Scores) -> tuple[tuple[float, float] | None, str]:
    values = scores.per_case[np.isfinite(scores.per_case)]
    return mean_interval(values) if len(values) else (None, "undefined in every case")


def _means(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Return {variant: {dataset and configuration: mean}} where every variant is complete."""
    kept = [each for each in judged if each.label == MEAN and each.ranking is not None]
    if not kept:
        return {}
    most = max(len(each.scores) for each in kept)
    complete = [each for each in kept if len(each.scores) == most and each.ranking is not None]
    names = list(complete[0].scores)
    return {
        name: {
            f"{each.dataset} {each.configuration}": each.ranking.means[name]
            for each in complete
            if each.ranking is not None
        }
        for name in names
    }


def summary(judgement: Judgement) -> list[str]:
    """Return what a reader should take home, a sentence each."""
    lines = []
    for each in judgement.judged:
        if each.label != MEAN:
            continue
        place = f"{each.dataset}, {each.configuration}"
        for name, comparison in each.comparisons.items():
            said = words.about_method(comparison)
            lines.append(f"{place}: {name} beside {judgement.baseline}: {said}.")
        lines.append(f"{place}: {words.about_suitability(each.separates)}.")
        if warning := words.about_cases(each.cases):
            lines.append(f"{place}: {warning}.")
    if judgement.overall is not None:
        lines.append(words.about_datasets(judgement.overall).rstrip(".") + ".")
        for name, (worse, equal, better) in judgement.practical.items():
            lines.append(
                f"{name} on a further dataset, beside {judgement.baseline}: worse "
                f"{worse:.0%}, practically equal (within {100 * judgement.rope:g} points) "
                f"{equal:.0%}, better {better:.0%} (Bayesian signed-rank test over "
                f"{len(judgement.overall.datasets)} datasets)."
            )
    return lines


def markdown(judgement: Judgement) -> str:
    """Return all tables, and the summary in words, as Markdown."""
    parts = ["# Summary", *(f"- {line}" for line in summary(judgement)), ""]
    for each in judgement.judged:
        parts += [f"## {each.dataset}, {each.configuration}: {each.label}", ""]
        parts += [*_table(each, judgement.baseline), ""]
    if judgement.overall is not None:
        parts += ["## Over datasets", "", *_overall(judgement.overall), ""]
    return "\n".join(parts)


def _table(each: Judged, baseline: str) -> list[str]:
    head = ["variant", "seeds", "Dice", "95 % interval", "n", "scores of 0", "beside the baseline"]
    lines = [_row(head), _row(["---"] * len(head))]
    order = each.ranking.means if each.ranking is not None else each.scores
    for name in order:
        scores, (interval, note) = each.scores[name], each.intervals[name]
        shown = note if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
        beside = each.comparisons.get(name)
        said = "baseline" if name == baseline else words.about_method(beside) if beside else "-"
        n = int(np.isfinite(scores.per_case).sum())
        cells = [name, scores.seeds, f"{scores.mean:.4f}", shown, n, each.missed[name], said]
        lines.append(_row(list(map(str, cells))))
    lines.append("")
    lines += [
        f"- {name}: {words.about_networks(comparison)}."
        for name, comparison in each.comparisons.items()
    ]
    if each.ranking is not None:
        lines.append(f"- Rank of means against mean of ranks: tau {each.ranking.tau:.2f}.")
    lines.append(f"- This dataset: {words.about_suitability(each.separates)}.")
    return lines


def _overall(overall: Overall) -> list[str]:
    head = ["variant", "mean rank", "rank of the mean"]
    lines = [_row(head), _row(["---"] * len(head))]
    for name, rank in overall.mean_ranks.items():
        lines.append(_row([name, f"{rank:.2f}", f"{overall.rank_of_means[name]:g}"]))
    lines += ["", f"- Between both orders: tau {overall.tau:.2f}."]
    lines.append(f"- {words.about_datasets(overall).rstrip('.')}.")
    for clique in overall.cliques:
        lines.append(f"- Not told apart: {', '.join(clique)}.")
    for dataset, (tau, first) in overall.without.items():
        lines.append(f"- Without {dataset}: tau {tau:.2f}, first is {first}.")
    if len(overall.datasets) < ENOUGH_DATASETS:
        lines.append("- No stars and no cliques: too few datasets.")
    return lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
