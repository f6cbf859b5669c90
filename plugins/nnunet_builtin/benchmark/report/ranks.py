"""Plots of ranks: how stable they are on one dataset, and who is not told apart over datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.judgement import Judged
from nnunet_builtin.judging.rows import MEAN
from nnunet_builtin.pages.elements import Element, Plot
from nnunet_builtin.statistics.ranking import SAMPLES, Overall

#: Diameter of a blob of all samples, in pixels.
_LARGEST = 46
_ROW_PIXELS = 34


def rank_plot(content: Content, judged: Sequence[Judged]) -> Iterator[Element]:
    """Yield how stable the ranks of the mean over labels are, of one metric on one dataset."""
    for each in judged:
        if each.label == MEAN and each.ranking is not None:
            yield Plot(
                blobs(each.ranking.shares, content.colours),
                f"How often a variant has each rank by its mean {each.metric}, of {SAMPLES} "
                "bootstrap samples of seeds and cases. Blobs spread over several ranks: the order "
                "is not stable",
                height=90 + _ROW_PIXELS * len(each.ranking.shares),
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


def clique_plots(content: Content) -> Iterator[Element]:
    """Yield the mean ranks over datasets, where there are enough for a test."""
    for over in content.judgement.over_datasets:
        overall = over.overall
        if overall.p:
            where = f" ({over.configuration})" if over.configuration else ""
            yield Plot(
                cliques(overall, content.colours),
                f"Mean ranks over {len(overall.datasets)} datasets{where}, the best at the left. A "
                "bar joins variants of which no two are shown to differ (Wilcoxon, Holm)",
                height=110 + 14 * len(overall.cliques),
            )


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
