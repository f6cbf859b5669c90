"""Time and memory of repeated steps; needs PyTorch alone, so that peers are timed the same way."""

from __future__ import annotations

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


def allocated(device: str) -> int:
    """Return the bytes of tensors on the card now."""
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def peak_gigabytes(device: str, others: int = 0) -> float | None:
    """Return the most memory of tensors since the warm-up, less `others` bytes; None on CPU."""
    if device == "cpu":
        return None
    return (torch.cuda.max_memory_allocated() - others) / 1e9
