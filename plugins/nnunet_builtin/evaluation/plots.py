"""Box plots of every metric, label by label, as PNG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.evaluation.documents import Evaluation
from nnunet_builtin.evaluation.statistics import LabelStatistics
from nnunet_core.errors import counted
from nnunet_core.runtime.files import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

#: The file in the folder of an evaluation.
BOXES = "boxplots.png"
_BOX, _POINTS, _BAD = "#a9c8e8", "#1f4e79", "#c0392b"
_UNBOUNDED = ("HD95", "ASSD", "Relative Volume Error")
_PLOTTED = ("Dice", "Surface Dice", "HD95", "ASSD", "Relative Volume Error", "Lesion F1")
#: Inches of a panel, of a label, of one among many, of a letter, and around a row of panels.
_PANEL, _ROW, _LOW, _LETTER, _MARGIN = 2.8, 0.45, 0.25, 0.085, 0.75
#: Panels side by side; with more labels than this, all of them.
_COLUMNS, _FEW = 3, 12
#: With more cases, points would hide the box.
_MOST_POINTS = 200
#: Stands for infinity in quartiles, far to the right of every panel.
_FAR = 1e9


def draw_boxes(evaluation: Evaluation, path: Path) -> None:
    """Draw a panel per metric with a box per label: quartiles, median, whiskers of 1.5 times their
    distance, a point per case. Infinite values are counted beside the panel, and are the largest
    ones of the box, which then leaves the panel: as in the table, misses make no median better.

    Args:
        evaluation: With at least one label.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    labels = evaluation.statistics
    names = [metric.name for metric in evaluation.metrics if metric.name in _PLOTTED]
    texts = [_shortened(label.name) for label in labels.values()]
    columns = len(names) if len(labels) > _FEW else min(len(names), _COLUMNS)
    rows = math.ceil(len(names) / columns)
    width = _PANEL * columns + _LETTER * max(map(len, texts)) + 0.3
    height = rows * ((_ROW if len(labels) <= _FEW else _LOW) * len(labels) + _MARGIN)
    figure = Figure((width, height), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        known = [row for row in evaluation.rows if row.scores[name] is not None]
        for number, target in enumerate(labels):
            values = [row.scores[name] for row in known if row.target == target]
            _draw_box(axes, number, np.array(values, float))
        _finish(axes, name, list(labels.values()))
        if name in _UNBOUNDED:
            _set_limits(axes, np.array([row.scores[name] for row in known], float))
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    panels[0].set_yticks(range(len(texts)), texts)
    panels[0].set_ylim(len(texts) - 0.5, -0.5)
    figure.suptitle(f"{counted(evaluation.cases, 'case')}; box: quartiles and median", fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _shortened(name: str, length: int = 24) -> str:
    return name if len(name) <= length else f"{name[: length // 2]}…{name[1 - length // 2 :]}"


def _draw_box(axes: Axes, position: int, values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    if infinite := len(values) - len(finite):
        beside = axes.get_yaxis_transform()  # x in widths of the panel, y in labels
        text = f"{infinite} × ∞"
        axes.text(1.02, position, text, transform=beside, va="center", fontsize=8, color=_BAD)
    if not len(finite):
        return
    axes.boxplot(
        np.where(np.isfinite(values), values, _FAR),
        positions=[position],
        orientation="horizontal",
        widths=0.55,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": _BOX, "edgecolor": _POINTS, "linewidth": 0.8},
        medianprops={"color": _POINTS, "linewidth": 1.6},
        whiskerprops={"color": _POINTS, "linewidth": 0.8},
        capprops={"color": _POINTS, "linewidth": 0.8},
        manage_ticks=False,
    )
    if len(finite) <= _MOST_POINTS:
        spread = np.random.default_rng(0).uniform(-0.18, 0.18, len(finite))
        axes.scatter(
            finite, position + spread, s=7, color=_POINTS, alpha=0.55, linewidths=0, zorder=3
        )


def _finish(axes: Axes, name: str, labels: list[LabelStatistics]) -> None:
    """Write titles and units; shares go from 0 to 1, distances from 0."""
    from matplotlib.ticker import PercentFormatter

    title = {"HD95": "HD95 (mm)", "ASSD": "ASSD (mm)", "Relative Volume Error": "volume error"}
    tolerances = {label.tolerance for label in labels}
    at = f"{tolerances.pop():g} mm" if len(tolerances) == 1 else "the labels' tolerances"
    title["Surface Dice"] = f"Surface Dice at {at}"
    axes.set_title(title.get(name, name), fontsize=9)
    axes.tick_params(labelsize=8, labeltop=len(labels) > _FEW)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if name == "Relative Volume Error":
        axes.axvline(0, color="#777777", linewidth=0.8)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    elif name not in _UNBOUNDED:
        axes.set_xlim(-0.03, 1.03)


def _set_limits(axes: Axes, values: np.ndarray) -> None:
    """Show all finite values, and zero."""
    from matplotlib.ticker import MaxNLocator

    finite = values[np.isfinite(values)]
    low, high = min(finite.min(initial=0), 0), max(finite.max(initial=0), 0)
    margin = 0.04 * max(high - low, 0.1)
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6))
