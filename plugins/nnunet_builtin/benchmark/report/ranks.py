"""Who comes first, and how sure that is: ranks of one dataset, and over datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.judgement import Judged, OverDatasets
from nnunet_builtin.pages.elements import (
    Column,
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
from nnunet_builtin.statistics.ranking import SAMPLES, Overall

#: Diameter of a blob of all samples, in pixels.
_LARGEST = 46
_ROW_PIXELS = 34


def rank_section(content: Content) -> Section | None:
    """Return the ranks; None where there is one variant."""
    judged = [each for each in content.judgement.main if each.ranking is not None]
    elements = [element for each in judged for element in _of_dataset(content, each)]
    for over in content.judgement.over_datasets:
        elements += _over_datasets(content, over)
    return Section("Ranks", elements) if elements else None


def _of_dataset(content: Content, each: Judged) -> Iterator[Element]:
    assert each.ranking is not None
    ranking, place = each.ranking, f"{each.dataset}, {each.configuration}"
    rows: list[list[Value]] = [
        [
            name,
            ranking.ranks[name],
            ranking.case_ranks[name],
            each.mean(name),
            ranking.shares[name][0],
        ]
        for name in each.order
    ]
    columns: list[Head] = [
        "variant",
        Column("rank of the mean", 1, "The scores of cases averaged, then ranked."),
        Column("mean of ranks", 2, "Ranked in each case, then averaged."),
        Column(f"mean {each.metric}"),
        Column("share first", 3, "Of the bootstrap samples of seeds and cases."),
    ]
    tau = f"Kendall's tau between both orders: {ranking.tau:.2f}"
    yield Table(columns, rows, f"{place}: ranks by the mean over labels. {tau}")
    yield Plot(
        blobs(ranking.shares, content.colours),
        f"{place}: how often a variant has each rank, of {SAMPLES} bootstrap samples of seeds and "
        "cases. Blobs spread over several ranks: the order is not stable",
        height=90 + _ROW_PIXELS * len(rows),
    )


def blobs(shares: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> dict[str, Any]:
    """Return a figure of ranks (x) of variants (y): the area of a blob is a share of samples.

    Args:
        shares: {variant: share of samples in which it has rank 1, 2 ...}, the best first.
        colours: {variant: colour}.
    """
    data = []
    for name, own in shares.items():
        there = [(rank, share) for rank, share in enumerate(own, start=1) if share > 0]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [rank for rank, _ in there],
                "y": [name] * len(there),
                "text": [f"{share:.1%}" for _, share in there],
                "hovertemplate": Markup("rank %{x}: %{text}"),
                "marker": {
                    "color": colours[name],
                    "size": [round(_LARGEST * share**0.5, 2) for _, share in there],
                    "opacity": 0.85,
                },
            }
        )
    ranks = len(shares)
    return {
        "data": data,
        "layout": {
            "showlegend": False,
            "xaxis": {"title": {"text": "rank"}, "dtick": 1, "range": [0.4, ranks + 0.6]},
            "yaxis": {"type": "category", "autorange": "reversed"},
        },
    }


def _over_datasets(content: Content, over: OverDatasets) -> Iterator[Element]:
    overall = over.overall
    where = f" ({over.configuration})" if over.configuration else ""
    rows: list[list[Value]] = [
        [name, rank, overall.rank_of_means[name], *(over.practical.get(name) or (None,) * 3)]
        for name, rank in overall.mean_ranks.items()
    ]
    columns: list[Head] = [
        "variant",
        Column("mean rank", 2, "Ranked in each dataset, then averaged."),
        Column("rank of the mean", 1, "Scores of datasets averaged, then ranked."),
        Column("P(worse)", 3, "On a further dataset, than the baseline: Bayesian signed-rank."),
        Column("P(equal)", 3, "Practically equal: within the stated margin."),
        Column("P(better)", 3, "On a further dataset, than the baseline."),
    ]
    count = len(overall.datasets)
    margin = f"practically equal is within {100 * content.judgement.rope:g} points"
    tau = f"Kendall's tau between both orders: {overall.tau:.2f}"
    yield Table(columns, rows, f"Over {count} datasets{where}: {tau}; {margin}")
    yield Text(f"Over datasets{where}: {words.about_datasets(overall)}.", "warning")
    if overall.p:
        yield Plot(
            cliques(overall, content.colours),
            f"Mean ranks over {count} datasets{where}, the best at the left. A bar joins variants "
            "of which no two are shown to differ (Wilcoxon over datasets, Holm)",
            height=110 + 14 * len(overall.cliques),
        )
        yield _pairs(overall)
    yield from _left_out(overall)


def cliques(overall: Overall, colours: Mapping[str, str]) -> dict[str, Any]:
    """Return a figure of mean ranks on a line, and bars that join variants not told apart."""
    ranks = overall.mean_ranks
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": list(ranks.values()),
            "y": [0.0] * len(ranks),
            "text": list(ranks),
            # neighbours would write over each other
            "textposition": [("top center", "bottom center")[n % 2] for n in range(len(ranks))],
            "marker": {"size": 12, "color": [colours[name] for name in ranks]},
            "hovertemplate": Markup("%{text}: %{x:.2f}<extra></extra>"),
            "cliponaxis": False,
        }
    ]
    for number, clique in enumerate(overall.cliques, start=1):
        ends = [ranks[clique[0]], ranks[clique[-1]]]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": ends,
                "y": [-float(number)] * 2,
                "line": {"width": 5, "color": "#888888"},
                "hoverinfo": "skip",
            }
        )
    lowest = -len(overall.cliques) - 0.8
    return {
        "data": data,
        "layout": {
            "showlegend": False,
            "xaxis": {"title": {"text": "mean rank"}, "range": [0.6, len(ranks) + 0.4]},
            "yaxis": {"visible": False, "range": [min(lowest, -1.2), 1.2]},
        },
    }


def _pairs(overall: Overall) -> Table:
    rows: list[list[Value]] = [[first, second, p] for (first, second), p in overall.p.items()]
    return Table(["variant", "other", Column("p", 4)], rows, "Wilcoxon over datasets, Holm")


def _left_out(overall: Overall) -> Iterator[Element]:
    if overall.without:
        rows: list[list[Value]] = [
            [name, tau, first] for name, (tau, first) in overall.without.items()
        ]
        columns: list[Head] = [
            "without",
            Column("tau", 2, "Kendall's tau with the whole ranking."),
            "first",
        ]
        yield Table(columns, rows, "One dataset left out: does the order hold?")
    else:
        yield Sentences(["Leaving one dataset out says nothing below three datasets."])
