"""A learning rate that rises from batch to batch, and what the losses say of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

#: Shares of the batches: what the smoothed loss remembers (v1: 20 of 1000), and what a slope is
#: measured over.
_MEMORY, _WINDOW = 0.05, 0.1
_DIVERGED = 4.0  # times the best smoothed loss
_ABOVE_ZERO = 1.0  # the soft Dice loss goes down to -1; as v1, losses are compared one above it
_CLEAR = 3.0  # standard errors that a slope is below 0


@dataclass(frozen=True)
class Sweep:
    """Losses of batches in order, each with a higher learning rate.

    Attributes:
        rates, losses, smoothed: Of each batch; a moving average without its bias to 0.
        diverged: Whether the loss left every bound, which ended it.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool

    @property
    def lowest(self) -> tuple[float, float] | None:
        """Rate and smoothed loss where that is lowest; None without losses."""
        pairs = zip(self.smoothed, self.rates, strict=True)
        best = min(pairs, default=None)
        return None if best is None else (best[1], best[0])

    def steepest(self, batches: int) -> tuple[float, float] | None:
        """Return the rate around which the loss falls fastest, and how much it falls there for a
        rate that is ten times higher; None where it nowhere falls clearly.

        Args:
            batches: That were asked for: a slope is that of a line through a tenth of them.
        """
        from scipy.stats import linregress

        width = max(5, round(_WINDOW * batches)) | 1
        found = []
        for start in range(len(self.rates) - width + 1):
            part = slice(start, start + width)
            line = linregress(np.log10(self.rates[part]), self.losses[part])
            if line.slope < -_CLEAR * line.stderr:
                found.append((float(line.slope), self.rates[start + width // 2]))
        slope, rate = min(found, default=(0.0, 0.0))
        return (rate, slope) if found else None


def rising(lowest: float, highest: float, batches: int) -> tuple[float, ...]:
    """Return learning rates from `lowest` to `highest`, each higher by the same factor."""
    return tuple(np.geomspace(lowest, highest, batches).tolist())


def swept(
    losses: Generator[float, None, None],
    rates: tuple[float, ...],
    progress: Callable[[float, float], None],
) -> Sweep:
    """Return what losses show, which are asked for until they diverge.

    Args:
        losses: Of the batches; closed in the end.
        rates: Of the batches.
        progress: Called with the rate and the smoothed loss of each.
    """
    seen: list[float] = []
    smoothed: list[float] = []
    diverged, best = False, math.inf
    with contextlib.closing(losses):
        for average in _averages(losses, 1 - 1 / max(1.0, _MEMORY * len(rates)), seen):
            bound = _DIVERGED * (best + _ABOVE_ZERO)
            diverged = not (math.isfinite(average) and average + _ABOVE_ZERO <= bound)
            if diverged:
                break
            best = min(best, average)
            smoothed.append(average)
            progress(rates[len(smoothed) - 1], average)
    done = len(smoothed)
    return Sweep(rates[:done], tuple(seen[:done]), tuple(smoothed), diverged)


def _averages(losses: Iterable[float], memory: float, seen: list[float]) -> Iterator[float]:
    """Yield the moving average of losses, without its bias to 0; what was averaged is added to
    `seen`.
    """
    average = 0.0
    for count, loss in enumerate(losses, start=1):
        seen.append(loss)
        average = memory * average + (1 - memory) * loss
        yield average / (1 - memory**count)
