"""The tables and plots of each dataset: means, comparisons with the baseline, distributions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.judgement import Judged
from nnunet_builtin.judging.rows import MEAN
from nnunet_builtin.pages import figures
from nnunet_builtin.pages.elements import (
    NOTHING,
    Cell,
    Column,
    Details,
    Element,
    Head,
    Plot,
    Section,
    Sentences,
    Table,
    Text,
    Value,
)
from nnunet_builtin.statistics import words
from nnunet_builtin.statistics.comparison import Comparison

_MEANS: list[Head] = [
    "label",
    "variant",
    Column("mean", help="Over cases where it is defined, then over seeds."),
    Column("95 % interval", help="Of the mean over cases: BCa bootstrap."),
    Column("seeds", help="Trainings that differ in their seed, complete ones only."),
    Column("n", help="Cases where the metric is defined."),
    Column("missed", help="Structures that no prediction has, of all seeds: they score worst."),
    Column("false", help="Structures that only the prediction has, of all seeds."),
    Column("crashed", help="Scores of trainings that failed: the worst there is."),
]
_DIFFERENCES: list[Head] = [
    "label",
    "variant",
    Column("difference", 2, "Mean of the variant minus that of the baseline."),
    Column("95 % interval", 2, "Between the methods: over seeds and cases; from 3 seeds on."),
    Column("spread", 2, "Between seeds: standard deviation between the means of seeds, pooled."),
    Column("p method", 3, "Of no difference between the methods, Holm."),
    Column("method is", help="What is shown about the method; nothing below 3 seeds."),
    Column("p cases", 3, "Wilcoxon over cases, Holm: of these networks only."),
    Column("effect", 2, "Matched-pairs rank-biserial correlation over cases, -1 to 1."),
    Column("P(false)", 2, "That 'the larger mean is better' is false, were the cases all."),
]


def score_sections(content: Content) -> Iterator[Section]:
    """Yield a section for each dataset and configuration."""
    judged, baseline = content.judgement.judged, content.judgement.baseline
    for dataset, configuration in dict.fromkeys((e.dataset, e.configuration) for e in judged):
        mine = [e for e in judged if (e.dataset, e.configuration) == (dataset, configuration)]
        mine.sort(key=lambda each: each.label != MEAN)  # the mean over labels first
        elements = [*_head(content, mine[0])]
        for metric in dict.fromkeys(each.metric for each in mine):
            of_metric = [each for each in mine if each.metric == metric]
            elements += [_means(of_metric), *_comparisons(of_metric, baseline)]
            elements += _plots(content, of_metric)
        yield Section(f"{dataset}, {configuration}", elements)


def _head(content: Content, first: Judged) -> Iterator[Element]:
    """Yield what has to be known before the numbers."""
    lines = list(content.judgement.deviations.get((first.dataset, first.configuration), ()))
    if warning := words.about_cases(first.cases):
        lines.append(f"{warning}.")
    if len(first.scores) > 1:
        lines.append(f"This dataset {words.about_suitability(first.separates)}.")
    yield Sentences(lines, "warning")


def _means(judged: Sequence[Judged]) -> Table:
    rows: list[list[Value]] = []
    for each in judged:
        for name in each.order:
            mean, scores, failed = each.mean(name), each.scores[name], each.failures[name]
            is_best = name == each.order[0] and np.isfinite(mean)
            shown = Cell(f"{mean:.4f}", mean, strong=True) if is_best else mean
            interval, note = each.intervals[name]
            defined = int((~np.isnan(scores.per_case)).sum())
            row = [each.label, name, shown, _interval(interval, 4, note), scores.seeds, defined]
            rows.append([*row, failed.missed, failed.false, failed.crashed])
    caption = (
        f"{judged[0].metric}: the mean over cases, then over seeds. The best mean is bold; whether "
        "it is better, the next table says"
    )
    return Table(_MEANS, rows, caption)


def _interval(interval: tuple[float, float] | None, digits: int, note: str = NOTHING) -> Cell:
    if interval is None:
        return Cell(note)
    low, high = interval
    return Cell(f"{low:.{digits}f} to {high:.{digits}f}", low)


def _comparisons(judged: Sequence[Judged], baseline: str) -> Iterator[Element]:
    rows = [
        _comparison(each, name, found)
        for each in judged
        for name, found in each.comparisons.items()
    ]
    if not rows:
        yield Text(f"The baseline {baseline} is not complete here, or alone: nothing to compare.")
        return
    unit = f"{judged[0].metric}, {judged[0].unit.name}"
    yield Table(_DIFFERENCES, rows, f"Against the baseline {baseline} ({unit})")
    yield Text(f"{words.about_networks(judged[0].seeds, judged[0].folds)}.", "small")


def _comparison(each: Judged, name: str, found: Comparison) -> list[Value]:
    unit, spread = each.unit, found.seed_spread
    difference = unit.of(found.difference)
    shown = Cell("ranks only") if found.is_infinite else Cell(f"{difference:+.2f}", difference)
    interval = None if found.interval is None else unit.interval(found.interval)
    return [
        each.label,
        name,
        shown,
        _interval(interval, 2),
        None if spread is None else abs(unit.of(spread)),
        _p(found.p_method),
        Cell(verdict := words.verdict_of(found), verdict, strong=found.is_shown),
        _p(found.p_networks),
        found.effect,
        found.false_claim,
    ]


def _p(value: float | None) -> Value:
    return Cell("< 0.001", value) if value is not None and value < 0.001 else value


def _plots(content: Content, judged: Sequence[Judged]) -> Iterator[Element]:
    """Yield the distribution over cases of the mean over labels, and those of labels to open."""
    labels = []
    for each in judged:
        plot = Plot(_distribution(content, each), _caption(each))
        if each.label == MEAN:
            yield plot
        else:
            labels.append(plot)
    if labels:
        yield Details("Distributions of each label", labels)


def _distribution(content: Content, each: Judged) -> dict[str, object]:
    values = {name: abs(each.scores[name].per_case).tolist() for name in each.order}
    texts = {name: each.scores[name].cases for name in each.order} if each.label == MEAN else None
    return figures.distributions(values, each.metric, texts, content.colours)


def _caption(each: Judged) -> str:
    what = "the mean over labels" if each.label == MEAN else each.label
    return f"{each.metric} of {what}, a point for each of {each.cases} cases, mean over seeds"
