"""Figures of Plotly as plain values, with few points: distributions, curves."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from nnunet_core.errors import listed

#: Told apart also by people with colour-blindness, on white and on black (Paul Tol's).
PALETTE = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#999999",
    "#dd8844",
)
#: Points of one curve, and of one distribution.
MOST_OF_CURVE, MOST_OF_DISTRIBUTION = 300, 200
#: Fewer values than these have no shape that a violin could show.
_FEW = 8


def number_of(value: object) -> float:
    """Return a number of a line of metrics; NaN where a plugin wrote something else: a gap."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    return float("nan")


def colour(number: int) -> str:
    """Return the colour of series 0, 1, ..."""
    return PALETTE[number % len(PALETTE)]


def distributions(
    values: Mapping[str, Sequence[float]],
    title: str,
    texts: Mapping[str, Sequence[str]] | None = None,
    colours: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a violin with a box inside for each name, a box alone where there are few values.

    Args:
        values: {name: values}; NaN is left out, infinite ones are counted at the top. Many are
            replaced by as many quantiles as a page shows, from the smallest to the largest.
        title: Of the axis.
        texts: {name: what each value is of}, shown where it is pointed at.
        colours: {name: colour}.
    """
    data = []
    for number, (name, own) in enumerate(values.items()):
        numbers = np.asarray(own, float)
        defined = np.isfinite(numbers)
        shown, labels = numbers[defined], _chosen(texts, name, defined)
        if len(shown) > MOST_OF_DISTRIBUTION:
            shown = np.quantile(shown, np.linspace(0, 1, MOST_OF_DISTRIBUTION))
            labels = []
        fill = (colours or {}).get(name, colour(number))
        data.append(_distribution(name, shown, labels, fill))
    data += _infinite(values, texts, colours)
    layout = {"yaxis": {"title": {"text": title}}, "showlegend": False}
    layout["xaxis"] = {"type": "category", "categoryarray": list(values)}
    return {"data": data, "layout": layout}


def _chosen(texts: Mapping[str, Sequence[str]] | None, name: str, defined: np.ndarray) -> list[str]:
    if not texts:
        return []
    return [text for text, keep in zip(texts[name], defined, strict=True) if keep]


def _infinite(
    values: Mapping[str, Sequence[float]],
    texts: Mapping[str, Sequence[str]] | None,
    colours: Mapping[str, str] | None,
) -> list[dict[str, Any]]:
    """Return a marker above all finite values for each name that has infinite ones: how many."""
    everything = np.concatenate([np.zeros(1), *(np.asarray(v, float) for v in values.values())])
    top = 1.08 * float(everything[np.isfinite(everything)].max()) or 1.0
    data = []
    for number, (name, own) in enumerate(values.items()):
        infinite = np.isposinf(np.asarray(own, float))
        if not infinite.any():
            continue
        fill = (colours or {}).get(name, colour(number))
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": name,
                "x": [name],
                "y": [round(top, 5)],
                "text": [f"{np.count_nonzero(infinite)} infinite"],
                "textposition": "top center",
                "hovertext": [listed(_chosen(texts, name, infinite))],
                "hoverinfo": "text" if texts else "skip",
                "marker": {"color": fill, "size": 11, "symbol": "triangle-up"},
                "cliponaxis": False,
            }
        )
    return data


def _distribution(name: str, shown: np.ndarray, labels: list[str], fill: str) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "name": name,
        "x0": name,
        "y": [round(float(value), 5) for value in shown],
        "marker": {"color": fill, "size": 4, "opacity": 0.7},
        "line": {"color": fill, "width": 1.5},
        "hoverinfo": "y+text" if labels else "y",
        "jitter": 0.4,
        "pointpos": 0,
    }
    if labels:
        trace |= {"text": labels, "hoveron": "points"}
    if len(shown) < _FEW:
        return trace | {"type": "box", "boxpoints": "all"}
    # an end of its own: a violin that leaves the range of its values shows what is not there
    return trace | {
        "type": "violin",
        "points": "all",
        "spanmode": "hard",
        "box": {"visible": True, "width": 0.25},
        "meanline": {"visible": True},
    }


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_title: str,
    y_title: str,
    colours: Mapping[str, str] | None = None,
    dashes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return lines, thinned.

    Args:
        series: {name: (x, y)}.
        x_title: Of the axis.
        y_title: Of the axis.
        colours: {name: colour}.
        dashes: {name: dash of Plotly}.
    """
    data = []
    for number, (name, (x, y)) in enumerate(series.items()):
        places = thinned(np.asarray(y, float))
        line = {"color": (colours or {}).get(name, colour(number)), "width": 1.6}
        line["dash"] = (dashes or {}).get(name, "solid")
        data.append(
            {
                "type": "scatter",
                "mode": "lines" if len(places) > 1 else "markers",
                "name": name,
                "x": [float(x[place]) for place in places],
                "y": [round(float(y[place]), 5) for place in places],
                "line": line,
                "hovertemplate": Markup("%{x}: %{y:.4f}"),
            }
        )
    layout = {"xaxis": {"title": {"text": x_title}}, "yaxis": {"title": {"text": y_title}}}
    return {"data": data, "layout": layout}


def thinned(values: np.ndarray, most: int = MOST_OF_CURVE) -> list[int]:
    """Return the places of a curve that are drawn, in order: the smallest and the largest of each
    stretch, so that peaks stay; places of NaN are left out.
    """
    places = np.flatnonzero(np.isfinite(values))
    if len(places) <= most:
        return places.tolist()
    kept = {int(places[0]), int(places[-1])}
    for stretch in np.array_split(places, most // 2 - 1):
        own = values[stretch]
        kept |= {int(stretch[np.argmin(own)]), int(stretch[np.argmax(own)])}
    return sorted(kept)
