"""The losses of a range test as a picture; Matplotlib is imported on first use."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunet_builtin.rates.sweep import Sweep
from nnunet_core.runtime.files import atomic_path


def draw(sweep: Sweep, steepest: float | None, usual: float | None, title: str, path: Path) -> None:
    """Draw losses over learning rates.

    Args:
        sweep: What was measured; at least one batch.
        steepest: Rate of the fastest fall, or None.
        usual: Rate that the trainer is set to, or None.
        title: Of the picture.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 5.5), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.plot(sweep.rates, sweep.losses, ".", color="tab:blue", alpha=0.25, label="of each batch")
    axes.plot(sweep.rates, sweep.smoothed, color="tab:blue", label="smoothed")
    if steepest is not None:
        label = f"steepest fall, {steepest:.1e}"
        axes.axvline(steepest, color="tab:green", linestyle="--", label=label)
    if usual is not None and sweep.rates[0] <= usual <= sweep.rates[-1]:
        label = f"trainer.learning_rate, {usual:.1e}"
        axes.axvline(usual, color="tab:gray", linestyle=":", label=label)
    if sweep.diverged:
        axes.axvline(sweep.rates[-1], color="tab:red", linestyle="--", label="then it diverged")
    # a few batches of a loss that explodes would press all others onto one line
    low, high = min(sweep.losses), max(np.percentile(sweep.losses, 95), *sweep.smoothed)
    margin = 0.1 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_title(title, loc="left")
    axes.set_xlabel("learning rate, one batch each")
    axes.set_ylabel("training loss")
    axes.grid(visible=True, color="0.9")
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
