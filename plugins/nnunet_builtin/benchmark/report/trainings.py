"""Training curves of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.runs import Run
from nnunet_builtin.pages.elements import Element, Plot, Section
from nnunet_builtin.pages.figures import MOST_OF_CURVE, number_of, thinned

#: Points of all curves of a plot.
_MOST_POINTS = 9000
_FIELDS = {
    "validation_loss": "validation loss",
    "mean_dice_average": "Dice of validation patches, moving average",
}


def training_section(content: Content) -> Section | None:
    """Return the curves; None where no training wrote any."""
    elements: list[Element] = []
    runs = [run for run in content.runs if run.epochs]
    for dataset, configuration in dict.fromkeys(
        (run.place.dataset, run.place.configuration) for run in runs
    ):
        mine = [
            r for r in runs if (r.place.dataset, r.place.configuration) == (dataset, configuration)
        ]
        for name, title in _FIELDS.items():
            figure = _curves(content, mine, name, title)
            if figure["data"]:
                caption = (
                    f"{dataset}, {configuration}: {title}, a curve for each of {len(mine)} runs"
                )
                elements.append(Plot(figure, caption))
    return Section("Training curves", elements) if elements else None


def _curves(content: Content, runs: Sequence[Run], name: str, title: str) -> dict[str, Any]:
    """Return a figure: one colour a variant, which the legend shows and hides as a whole."""
    most, named, data = max(20, min(MOST_OF_CURVE, _MOST_POINTS // len(runs))), set(), []
    for run in sorted(runs, key=lambda run: content.variants.index(run.place.variant)):
        values = np.array([number_of(line.get(name)) for line in run.epochs])
        places = thinned(values, most)
        if not places:
            continue
        place = run.place
        epochs = [number_of(line.get("epoch")) for line in run.epochs]
        data.append(
            {
                "type": "scatter",
                "mode": "lines" if len(places) > 1 else "markers",
                "name": place.variant,
                "legendgroup": place.variant,
                "showlegend": place.variant not in named,
                "x": [_plain(epochs[p], p) for p in places],
                "y": [round(float(values[p]), 4) for p in places],
                "line": {"color": content.colours[place.variant], "width": 1.2},
                "opacity": 0.75,
                "meta": f"{place.variant}, seed {place.seed}, fold {place.fold}",
                "hovertemplate": Markup("%{meta}, epoch %{x}: %{y}<extra></extra>"),
            }
        )
        named.add(place.variant)
    layout = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": title}}}
    return {"data": data, "layout": layout}


def _plain(epoch: float, otherwise: int) -> float:
    return epoch if np.isfinite(epoch) else float(otherwise)
