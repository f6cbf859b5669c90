"""Time and memory of repeated steps; needs PyTorch alone, so that peers are timed the same way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch


def milliseconds(step: Callable[[], object], count: int, device: str) -> float:
    """Return the mean time of `count` steps; on a card between two events of its own clock.

    Nothing is waited for between steps, unless a step itself waits.
    """
    if device == "cpu":
        started = time.perf_counter()
        for _ in range(count):
            step()
        return 1000 * (time.perf_counter() - started) / count
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(count):
        step()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / count


def warm_up(step: Callable[[], object], count: int) -> None:
    """Run steps that do not count: libraries choose their algorithms, memory is reserved."""
    for _ in range(count):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def milliseconds_over(step: Callable[[], object], seconds: float, device: str) -> float:
    """Return the mean time of as many steps as take at least so many seconds together."""
    count = 5
    while True:
        taken = milliseconds(step, count, device)
        if taken * count >= 1000 * seconds:
            return taken
        count = max(2 * count, math.ceil(1100 * seconds / max(taken, 1e-3)))


def warm_up_over(step: Callable[[], object], seconds: float) -> None:
    """Run steps that do not count for so many seconds: a card at rest raises its clock slowly."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        warm_up(step, 10)


def allocated(device: str) -> int:
    """Return the bytes of tensors on the card now."""
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def peak_gigabytes(device: str, others: int = 0) -> float | None:
    """Return the most memory of tensors since the warm-up, less `others` bytes; None on CPU."""
    if device == "cpu":
        return None
    return (torch.cuda.max_memory_allocated() - others) / 1e9
