"""What each dataset shows: the tables of the judgement, distributions over cases, ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.benchmark.report.ranks import rank_plot
from nnunet_builtin.judging import rendering
from nnunet_builtin.judging.judgement import Judged
from nnunet_builtin.judging.rows import MEAN
from nnunet_builtin.pages import figures
from nnunet_builtin.pages.elements import (
    Cell,
    Details,
    Element,
    Plot,
    Section,
    Sentences,
    Table,
    Value,
)


def shown(table: rendering.Table) -> Iterator[Element]:
    """Yield a table of the judgement, with the sentences above and below it."""
    if table.head:
        yield Sentences(table.head, "warning")
    rows: list[list[Value]] = [
        [
            cell if isinstance(cell, str) else Cell(column.shown(cell), cell)
            for column, cell in zip(table.columns, row, strict=True)
        ]
        for row in table.rows
    ]
    yield Table([column.name for column in table.columns], rows, table.title)
    if table.notes:
        yield Sentences(table.notes, "small")


def dataset_sections(content: Content) -> Iterator[Section]:
    """Yield a section for each dataset and configuration."""
    places = dict.fromkeys((e.dataset, e.configuration) for e in content.judgement.judged)
    for dataset, configuration in places:
        mine = [
            each
            for each in content.judgement.judged
            if (each.dataset, each.configuration) == (dataset, configuration)
        ]
        elements: list[Element] = []
        for metric in dict.fromkeys(each.metric for each in mine):
            of_metric = [each for each in mine if each.metric == metric]
            elements += _of_metric(content, of_metric)
        yield Section(f"{dataset}, {configuration}", elements)


def _of_metric(content: Content, judged: Sequence[Judged]) -> Iterator[Element]:
    first = judged[0]
    keys = {"dataset": first.dataset, "configuration": first.configuration, "metric": first.metric}
    tables = [table for table in content.tables if keys.items() <= table.keys.items()]
    ranks = [table for table in tables if table.kind.startswith("ranks")]
    for table in tables:
        if table not in ranks:
            yield from shown(table)
    yield from _distributions(content, judged)
    for table in ranks:
        yield from shown(table)
    yield from rank_plot(content, judged)


def _distributions(content: Content, judged: Sequence[Judged]) -> Iterator[Element]:
    """Yield the distribution over cases of the mean over labels, and those of labels to open."""
    labels = []
    for each in judged:
        plot = Plot(_distribution(content, each), _caption(each))
        if each.label == MEAN:
            yield plot
        else:
            labels.append(plot)
    if len(labels) > 1:  # of one label it is the mean
        yield Details("Distributions of each label", labels)


def _distribution(content: Content, each: Judged) -> dict[str, object]:
    values = {name: abs(each.scores[name].per_case).tolist() for name in each.order}
    texts = {name: each.scores[name].cases for name in each.order} if each.label == MEAN else None
    return figures.distributions(values, each.metric, texts, content.colours)


def _caption(each: Judged) -> str:
    what = "the mean over labels" if each.label == MEAN else each.label
    caption = f"{each.metric} of {what}, a point for each of {each.cases} cases, mean over seeds"
    if any(np.isinf(each.scores[name].per_case).any() for name in each.order):
        caption += (
            ". Triangles at the top: how many cases have an infinite distance (missed structures), "
            "which violins, boxes and lines of means leave out"
        )
    return caption
