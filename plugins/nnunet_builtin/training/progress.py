"""The curves of a training as a picture, written atomically; Matplotlib is imported on first
use.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_core.runtime.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes


def progress_picture(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the curves of a training (spec: training, section 8).

    Above: training loss (blue), validation loss (red); on the right axis the Dice of the validation
    patches (green, dashed) and its moving average (green). Below: learning rate and seconds per
    epoch.

    Args:
        metrics: Lines of metrics.jsonl; missing or undefined values leave a gap.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    epochs = _column(metrics, "epoch")
    figure = Figure(figsize=(9.5, 7.5), dpi=100, facecolor="white", layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    marker = "." if len(metrics) <= 50 else None
    style: dict[str, Any] = {"marker": marker}
    lines = upper.plot(
        epochs, _column(metrics, "train_loss"), color="tab:blue", label="training loss", **style
    )
    lines += upper.plot(
        epochs,
        _column(metrics, "validation_loss"),
        color="tab:red",
        label="validation loss",
        **style,
    )
    dice = upper.twinx()
    style |= {"color": "tab:green", "linestyle": "--", "linewidth": 1, "alpha": 0.7}
    lines += dice.plot(epochs, _column(metrics, "mean_dice"), label="Dice", **style)
    average = _column(metrics, "mean_dice_average")
    lines += dice.plot(
        epochs, average, color="tab:green", linewidth=1.8, label="Dice, moving average"
    )
    upper.set_ylabel("loss")
    dice.set_ylabel("mean foreground Dice of validation patches", color="tab:green")
    dice.set_ylim(-0.02, 1.02)
    dice.tick_params(axis="y", colors="tab:green")
    upper.legend(
        handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False
    )
    _draw_schedule(lower, epochs, metrics, marker)
    for axes in (upper, lower):
        axes.grid(visible=True, color="0.9")
        axes.xaxis.get_major_locator().set_params(integer=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _column(metrics: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    values = [line.get(key) for line in metrics]
    return np.array([math.nan if value is None else value for value in values], float)


def _draw_schedule(
    axes: Axes, epochs: np.ndarray, metrics: Sequence[Mapping[str, Any]], marker: str | None
) -> None:
    axes.plot(epochs, _column(metrics, "learning_rate"), color="tab:purple", marker=marker)
    axes.set_xlabel("epoch")
    axes.set_ylabel("learning rate", color="tab:purple")
    axes.tick_params(axis="y", colors="tab:purple")
    seconds = axes.twinx()
    seconds.plot(epochs, _column(metrics, "seconds"), color="tab:gray", marker=marker)
    seconds.set_ylabel("seconds per epoch", color="tab:gray")
    seconds.tick_params(axis="y", colors="tab:gray")
    for shown in (axes, seconds):
        shown.set_ylim(0, 1.05 * shown.get_ylim()[1])
