"""The tables and plots of each dataset: means, comparisons with the baseline, distributions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.judgement import Judged
from nnunet_builtin.judging.rows import MEAN
from nnunet_builtin.pages import figures
from nnunet_builtin.pages.elements import (
    Cell,
    Column,
    Details,
    Element,
    Plot,
    Section,
    Sentences,
    Table,
    Text,
    Value,
)
from nnunet_builtin.statistics import words

_MEANS = [
    "metric",
    "label",
    "variant",
    Column("mean", help="Over cases where it is defined, then over seeds."),
    Column("95 % from", help="BCa bootstrap interval of the mean over cases."),
    Column("95 % to", help="BCa bootstrap interval of the mean over cases."),
    Column("seeds", help="Trainings that differ in their seed, complete ones only."),
    Column("n", help="Cases where the metric is defined."),
    Column("missed", help="Structures that no prediction has, of all seeds: they score worst."),
    Column("false", help="Structures that only the prediction has, of all seeds."),
    Column("crashed", help="Scores of trainings that failed: the worst there is."),
]
_DIFFERENCES = [
    "metric",
    "label",
    "variant",
    Column("difference", 2, "Mean of the variant minus that of the baseline."),
    Column("95 % from", 2, "Between the methods: over seeds and cases; from 3 seeds on."),
    Column("95 % to", 2, "Between the methods: over seeds and cases; from 3 seeds on."),
    Column("seed spread", 2, "Standard deviation between the means of seeds, pooled."),
    Column("p (method)", 3, "Of no difference between the methods, Holm."),
    "shown",
    Column("p (cases)", 3, "Wilcoxon over cases, Holm: of these networks only."),
    Column("effect", 2, "Matched-pairs rank-biserial correlation over cases, -1 to 1."),
    Column("P(false)", 3, "That 'the larger mean is better' is false, were cases all."),
]


def score_sections(content: Content) -> Iterator[Section]:
    """Yield a section for each dataset and configuration."""
    judged = content.judgement.judged
    for dataset, configuration in dict.fromkeys((e.dataset, e.configuration) for e in judged):
        mine = [e for e in judged if (e.dataset, e.configuration) == (dataset, configuration)]
        mine.sort(key=lambda each: each.label != MEAN)  # the mean over labels first
        elements = [*_head(content, mine[0])]
        elements += [_means(mine), *_comparisons(mine, content.judgement.baseline)]
        elements += _plots(content, mine)
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
        best = each.order[0] if each.ranking is not None else ""
        for name in each.order:
            scores, failed = each.scores[name], each.failures[name]
            interval, note = each.intervals[name]
            mean = each.mean(name)
            low, high = interval or (None, None)
            rows.append(
                [
                    each.metric,
                    each.label,
                    name,
                    Cell(f"{mean:.4f}", mean, strong=name == best) if mean == mean else None,
                    Cell(note) if low is None else low,
                    high,
                    scores.seeds,
                    int((scores.per_case == scores.per_case).sum()),
                    failed.missed,
                    failed.false,
                    failed.crashed,
                ]
            )
    caption = (
        "Scores: the mean over cases, then over seeds, with the interval of the mean over cases. "
        "The largest is bold: whether it is better, the comparison says"
    )
    return Table(_MEANS, rows, caption)


def _comparisons(judged: Sequence[Judged], baseline: str) -> Iterator[Element]:
    rows: list[list[Value]] = []
    for each in judged:
        for name, found in each.comparisons.items():
            interval = None if found.interval is None else each.unit.interval(found.interval)
            low, high = interval or (None, None)
            spread = found.seed_spread
            rows.append(
                [
                    f"{each.metric} ({each.unit.name})",
                    each.label,
                    name,
                    Cell("ranks only") if found.is_infinite else each.unit.of(found.difference),
                    low,
                    high,
                    None if spread is None else abs(each.unit.of(spread)),
                    found.p_method,
                    words.verdict_of(found),
                    found.p_networks,
                    found.effect,
                    found.false_claim,
                ]
            )
    if not rows:
        yield Text(f"The baseline {baseline} is not complete here, or alone: nothing to compare.")
        return
    yield Table(_DIFFERENCES, rows, f"Against the baseline {baseline}")
    yield Text(f"{words.about_networks(judged[0].seeds, judged[0].folds)}.")


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
