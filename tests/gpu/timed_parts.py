"""Times the parts of a script in a process of its own; prints them, also when its time is up.

It imports nothing but PyTorch, so that it serves in the environments of others, too.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


class Parts:
    """The seconds of the parts of a script, and the peaks of its memory.

    Args:
        device: `cpu` or `cuda`; the clock waits for the card.
        until: Time (`time.time`) at which the script ends with what it has; `stopped` then names
            the part.

    Attributes:
        result: What `leave` prints; add to it what is not a time.
    """

    def __init__(self, device: str, until: float) -> None:
        self.device = device
        self.result: dict[str, Any] = {}
        self.running = "start"
        self.lock = threading.Lock()
        if device == "cuda":
            torch.cuda.init()  # peaks can be reset only after it
        timer = threading.Timer(max(0.0, until - time.time()), self._stop)
        timer.daemon = True
        timer.start()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        self.running = name
        started = self._now()
        yield
        self.result[name] = round(self._now() - started, 3)

    def reset_peak(self) -> None:
        """Count the card's memory from here on."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def leave(self) -> None:
        """Print the result as a line of JSON, kill child processes, and end this one."""
        with self.lock:
            self.result["host_gb"] = round(peak_memory() / 1e9, 2)
            if self.device == "cuda":
                self.result["card_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            print("\n" + json.dumps(self.result))
            sys.stdout.flush()
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(0)

    def _stop(self) -> None:
        self.result["stopped"] = self.running
        self.leave()

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def peak_memory() -> int:
    """Return the most memory that this process has had at once, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0
