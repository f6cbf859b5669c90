"""Stage b: times of training steps on one batch, ours and nnunetv2's, in turns."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import Asked, Results, asked, find_peer, left_out, run_peer, seconds_left
from own_steps import FULL, TINY, Choice, Size, own_runtime, own_step
from timing import allocated, milliseconds, peak_gigabytes, warm_up

from nnunet_builtin.training.loop import computing

OURS, PEER = "ours", "nnunetv2"
MS, AGAIN = "ms per step", "ms again"
COLUMNS = (
    "patch", "batch", "who", "precision", "memory order", "compiled",
    MS, AGAIN, "GB", "TFLOP/s", "% of floor",
)  # fmt: skip
PRECISIONS = ("float16", "bfloat16")
#: Seconds that the stage keeps back for its end.
RESERVE = 5.0
_PRODUCT = {"cuda": 8192, "cpu": 256}  # rows of the matrices that the floor is measured with


@dataclass(frozen=True)
class Round:
    """Sides that are measured in turns.

    Attributes:
        size: Index of the network and batch.
        compiled: Whether both sides are.
        first, last: Which choices of ours; those to compile in the order of their eager times.
    """

    size: int
    compiled: bool
    first: int = 0
    last: int = 4


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        sizes: Networks and batches.
        rounds: The most informative first.
        warm_up, steps: Of every side.
        seconds: Where nobody says how long the stage may take.
        expected: Seconds of one side, by (who, compiled), until one was seen here.
    """

    sizes: tuple[Size, ...]
    rounds: tuple[Round, ...]
    warm_up: int
    steps: int
    seconds: float
    expected: dict[tuple[str, bool], float]


FULLY = Extent(
    FULL,
    (
        Round(0, compiled=False),
        Round(0, compiled=True, last=1),
        *(Round(size, compiled=False) for size in (1, 3, 2)),
        *(Round(size, compiled=True, last=1) for size in (1, 3, 2)),
        *(Round(size, compiled=True, first=1) for size in (0, 1, 3, 2)),
    ),
    warm_up=5,
    steps=20,
    seconds=115,
    expected={(OURS, False): 8, (OURS, True): 45, (PEER, False): 20, (PEER, True): 60},
)
TINILY = Extent(
    TINY,
    (
        Round(0, compiled=False),
        Round(0, compiled=True, last=1),
        *(Round(size, compiled=False) for size in (1, 2, 3)),
    ),
    warm_up=1,
    steps=2,
    seconds=600,
    expected=dict.fromkeys(FULLY.expected, 0),
)


class Clock:
    """What is left of the stage's time, and what a side takes of it.

    Args:
        seconds: Of the stage.
        expected: Seconds of one side, by (who, compiled).
    """

    def __init__(self, seconds: float, expected: dict[tuple[str, bool], float]) -> None:
        self.end = time.monotonic() + seconds - RESERVE
        self.expected = dict(expected)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def has_time(self, who: str, compiled: bool) -> bool:
        """Return whether a side can be measured in what is left."""
        return self.left() > self.expected[who, compiled]

    @contextlib.contextmanager
    def learning(self, who: str, compiled: bool) -> Iterator[None]:
        """Expect of the next such side what the block took."""
        started = time.monotonic()
        yield
        self.expected[who, compiled] = time.monotonic() - started


class StepTimes:
    """Measures rounds: ours, the peer, and ours again."""

    def __init__(self, given: Asked, extent: Extent, results: Results, folder: Path) -> None:
        self.device = given.device
        self.extent = extent
        self.results = results
        self.folder = folder
        self.peer = find_peer(given.peer)
        self.clock = Clock(seconds_left(extent.seconds), extent.expected)
        self.products = results.table("Large matrix products", "precision", "TFLOP/s")
        self.table = results.table("Training steps", *COLUMNS)
        self.rates: dict[str, float] = {}

    def run(self) -> None:
        """Measure every round that there is time for."""
        self._floor()
        if self.peer is None:
            self.results.note("nnunetv2 left out: no Python that has it was given (--peer).")
        for turn in self.extent.rounds:
            self._round(turn)

    def _floor(self) -> None:
        """Measure large matrix products: what the card can compute at all."""
        for precision in PRECISIONS if self.device == "cuda" else (*PRECISIONS, "float32"):
            with left_out(self.results, f"matrix product in {precision}"):
                self.rates[precision] = product_rate(precision, self.device)
                self.results.row(self.products, precision, self.rates[precision])

    def _round(self, turn: Round) -> None:
        size, steps = self.extent.sizes[turn.size], {}
        for choice in self._choices(size, turn.compiled)[turn.first : turn.last]:
            steps |= self._ours(size, choice)
        if turn.first == 0:
            self._peer(size, turn.compiled)
        for row, step in steps.items():
            self._again(row, step)
        steps.clear()
        torch.compiler.reset()  # it keeps a few shapes only, and then computes as if not compiled

    def _choices(self, size: Size, compiled: bool) -> list[Choice]:
        """Return the choices; those to compile in the order of their eager times."""
        pairs = itertools.product(PRECISIONS, (True, False))
        found = [Choice(precision, last, compiled) for precision, last in pairs]
        eager = {}
        for cells in self.table.rows:
            row = dict(zip(COLUMNS, cells, strict=True))
            if (row["patch"], row["who"], row["compiled"]) == (size.name, OURS, "no"):
                eager[row["precision"], row["memory order"]] = row[MS]
        return sorted(found, key=lambda one: eager.get((one.precision, one.order), math.inf))

    def _ours(self, size: Size, choice: Choice) -> dict[int, Callable[[], float]]:
        """Measure a choice; return its row in the table and its step, nothing where it fails."""
        what, found = f"{OURS}, {size.name}, {choice}", {}
        if not self._has_time(what, OURS, choice.compiled):
            return found
        with left_out(self.results, what), self.clock.learning(OURS, choice.compiled):
            others = allocated(self.device)
            step = own_step(size, choice, self.device, self.folder)
            warm_up(step, self.extent.warm_up)
            taken = milliseconds(step, self.extent.steps, self.device)
            self._row(size, OURS, choice, taken, None, peak_gigabytes(self.device, others))
            found[len(self.table.rows) - 1] = step
        return found

    def _again(self, row: int, step: Callable[[], float]) -> None:
        if self.clock.left() < 0:
            return
        with left_out(self.results, f"row {row + 1} again"):
            warm_up(step, 1)
            taken = milliseconds(step, self.extent.steps, self.device)
            self.results.fill(self.table, row, AGAIN, taken)

    def _peer(self, size: Size, compiled: bool) -> None:
        if self.peer is None or (compiled and self.device == "cpu"):  # it compiles on cards only
            return
        what = f"{PEER}, {size.name}, {'compiled' if compiled else 'eager'}"
        if not self._has_time(what, PEER, compiled):
            return
        if self.device == "cuda":
            torch.cuda.empty_cache()  # both are on the card at once
        with left_out(self.results, what), self.clock.learning(PEER, compiled):
            question, left = self._question(size, compiled), max(1.0, self.clock.left())
            found = run_peer(self.peer, "peer_steps.py", json.dumps(question), timeout=left)
            choice = Choice(found["precision"], channels_last=False, compiled=compiled)
            self._row(size, PEER, choice, found["ms"], found["again"], found["gigabytes"])

    def _question(self, size: Size, compiled: bool) -> dict[str, Any]:
        """Return what `peer_steps.py` is asked."""
        stages = range(len(size.kernels))
        return {
            "patch": size.patch,
            "batch": size.batch,
            "strides": [[1] * len(size.patch), *size.pools],
            "kernels": size.kernels,
            "features": [size.spec.features(stage) for stage in stages],
            "device": self.device,
            "compiled": compiled,
            "warm_up": self.extent.warm_up,
            "steps": self.extent.steps,
        }

    def _has_time(self, what: str, who: str, compiled: bool) -> bool:
        enough = self.clock.has_time(who, compiled)
        if not enough:
            self.results.note(f"{what} left out: no time left.")
        return enough

    def _row(
        self,
        size: Size,
        who: str,
        choice: Choice,
        taken: float,
        again: float | None,
        gigabytes: float | None,
    ) -> None:
        reached = 1000 * size.teraflops() / taken
        rate = self.rates.get(choice.precision)
        share = None if rate is None else 100 * reached / rate
        compiled = "yes" if choice.compiled else "no"
        how = (choice.precision, choice.order, compiled)
        figures = (taken, again, gigabytes, reached, share)
        self.results.row(self.table, size.name, size.batch, who, *how, *figures)


def product_rate(precision: str, device: str) -> float:
    """Return the TFLOP/s of a product of two large square matrices."""
    rows, dtype = _PRODUCT[device], getattr(torch, precision)
    left, right = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
    warm_up(lambda: left @ right, 3)
    taken = milliseconds(lambda: left @ right, 10, device)
    return 2 * rows**3 / (taken / 1000) / 1e12


def main() -> None:
    given = asked(__doc__)
    extent = TINILY if given.tiny else FULLY
    if given.tiny:
        torch.set_num_threads(1)  # tiny steps on several threads wait for each other
    results = Results("Step times", given)
    runtime = own_runtime(Choice("bfloat16", channels_last=False, compiled=False), given.device)
    with tempfile.TemporaryDirectory() as folder, computing(runtime, deterministic=False):
        StepTimes(given, extent, results, Path(folder)).run()
    results.note(
        "The batch lies on the host, as loaders hand it over; nothing is augmented. TFLOP/s counts "
        "three forward passes per step; the floor is the time of its operations at the rate of a "
        "large matrix product of that precision."
    )
    results.finish()


if __name__ == "__main__":
    main()
