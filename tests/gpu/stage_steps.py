"""Stage b: times of training steps on one batch, ours and nnunetv2's, in turns."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import math
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import HERE, Asked, Results, asked, find_peer, left_out, seconds_left
from own_steps import FULL, TINY, Choice, OwnStep, Size, own_runtime, own_step
from timing import (
    allocated,
    milliseconds,
    milliseconds_over,
    peak_gigabytes,
    warm_up,
    warm_up_over,
)

from nnunet_builtin.computing.computation import computing

OURS, PEER = "ours", "nnunetv2"
MS, AGAIN = "ms per step", "ms again"
COLUMNS = (
    "patch", "batch", "who", "precision", "memory order", "compiled",
    MS, AGAIN, "GB", "TFLOP/s", "% of matrix rate",
)  # fmt: skip
PRECISIONS = ("float16", "bfloat16")
#: All choices of a size, eager or compiled.
ALL = 4
#: Seconds that the stage keeps back for its end.
RESERVE = 5.0
_PRODUCT = {"cuda": 8192, "cpu": 256}  # rows of the matrices of the matrix rate
_WARM_UP, _TIMED = 0.5, 0.4  # seconds of matrix products
_PATIENCE = 3  # seconds in which the peer may end by itself
_NOTES = (
    "The batch lies on the host, in pinned memory as loaders of both sides hand it over; nothing "
    "is augmented.",
    f"'{AGAIN}' is the fastest choice of ours of that size, measured again after nnunetv2.",
    "TFLOP/s counts three forward passes per step; '% of matrix rate' is their share of the rate "
    "of a large matrix product of that precision.",
)


@dataclass(frozen=True)
class Round:
    """Choices of ours that are measured together, and nnunetv2 the first time.

    Attributes:
        size: Index of the network and batch.
        compiled: Whether both sides are.
        count: How many of the choices that were not measured yet, the most promising first.
    """

    size: int
    compiled: bool
    count: int = ALL


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
        *(Round(size, compiled=False, count=1) for size in (1, 3, 2)),
        Round(0, compiled=True, count=1),
        *(Round(size, compiled=False, count=ALL - 1) for size in (1, 3, 2)),
        *(Round(size, compiled=True, count=1) for size in (1, 3, 2)),
        *(Round(size, compiled=True, count=ALL - 1) for size in (0, 1, 3, 2)),
    ),
    warm_up=5,
    steps=20,
    seconds=95,
    expected={(OURS, False): 8, (OURS, True): 90, (PEER, False): 8, (PEER, True): 90},
)
TINILY = Extent(
    TINY,
    (Round(0, compiled=False), *(Round(size, compiled=False, count=1) for size in (1, 3))),
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


class Peer:
    """nnunetv2 in a process of its own, which imports it once and measures size by size.

    It imports while ours is measured, and does nothing between two sizes.

    Args:
        python: Of an environment with nnunetv2.
        script: What it runs.
    """

    def __init__(self, python: str, script: Path = HERE / "peer_steps.py") -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.ready = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{"'):  # nnunetv2 prints much more
                self.answers.put(line)
        self.answers.put(None)

    def wait(self, seconds: float) -> None:
        """Wait until nnunetv2 is imported.

        Raises:
            RuntimeError: It fails, or takes too long.
        """
        if not self.ready:
            self._next(seconds)
            self.ready = True

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return what is measured of a size.

        Raises:
            RuntimeError: It fails, or takes too long.
        """
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: the answer says why
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        found = self._next(seconds)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def _next(self, seconds: float) -> dict[str, Any]:
        try:
            line = self.answers.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise RuntimeError(f"it took longer than {seconds:.0f} s") from None
        if line is None:
            status = self.process.wait()
            self.errors.seek(0)
            raise RuntimeError(f"it ended with {status}: {self.errors.read().strip()[-500:]}")
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


class StepTimes:
    """Measures rounds: ours, nnunetv2, and the best of ours again."""

    def __init__(self, given: Asked, extent: Extent, results: Results, folder: Path) -> None:
        self.device = given.device
        self.extent = extent
        self.results = results
        self.folder = folder
        self.python = find_peer(given.peer)
        self.peer: Peer | None = None
        self.clock = Clock(seconds_left(extent.seconds), extent.expected)
        self.products = results.table("Large matrix products", "precision", "TFLOP/s")
        self.table = results.table("Training steps", *COLUMNS)
        self.rates: dict[str, float] = {}
        self.work: dict[Size, float] = {}
        self.measured: set[tuple[Size, Choice]] = set()
        self.compared: set[tuple[Size, bool]] = set()
        self.skipped: list[str] = []

    def run(self) -> None:
        """Measure every round that there is time for."""
        for text in _NOTES:
            self.results.note(text)
        if self.python is None:
            self.results.note("nnunetv2 left out: no Python that has it was given (--peer).")
        else:
            self.peer = Peer(self.python)
        try:
            self._matrix_rates()
            for turn in self.extent.rounds:
                self._round(turn)
        finally:
            self._end_peer()

    def _matrix_rates(self) -> None:
        """Measure large matrix products: what the card can compute at all."""
        for precision in PRECISIONS if self.device == "cuda" else (*PRECISIONS, "float32"):
            with left_out(self.results, f"matrix product in {precision}"):
                self.rates[precision] = product_rate(precision, self.device)
                self.results.row(self.products, precision, self.rates[precision])

    def _round(self, turn: Round) -> None:
        size, best = self.extent.sizes[turn.size], None
        for choice in self._choices(size, turn.compiled)[: turn.count]:
            found = self._ours(size, choice)
            if found and (best is None or self._ms(found[0]) < self._ms(best[0])):
                best = found
        if (size, turn.compiled) not in self.compared:
            self.compared.add((size, turn.compiled))
            self._peer(size, turn.compiled)
            self._again(size, best)
        best = found = None
        torch.compiler.reset()  # it keeps a few shapes only, and then computes as if not compiled
        if self.skipped:
            self.results.note(f"Left out, no time left: {size.name}: {'; '.join(self.skipped)}.")
            self.skipped.clear()

    def _choices(self, size: Size, compiled: bool) -> list[Choice]:
        """Return the choices that were not measured yet, the most promising first.

        They are in the order of the eager times of the size, or else of the first size.
        """
        pairs = itertools.product(PRECISIONS, (True, False))
        found = [Choice(precision, last, compiled) for precision, last in pairs]
        times = [self._eager(one) for one in (size, self.extent.sizes[0])]
        found.sort(key=lambda c: [own.get((c.precision, c.order), math.inf) for own in times])
        return [choice for choice in found if (size, choice) not in self.measured]

    def _eager(self, size: Size) -> dict[tuple[str, str], float]:
        """Return the eager times of ours, by precision and memory order."""
        rows = [dict(zip(COLUMNS, cells, strict=True)) for cells in self.table.rows]
        wanted = (size.name, OURS, "no")
        rows = [row for row in rows if (row["patch"], row["who"], row["compiled"]) == wanted]
        return {(row["precision"], row["memory order"]): row[MS] for row in rows}

    def _ms(self, row: int) -> float:
        return float(self.table.rows[row][COLUMNS.index(MS)])

    def _ours(self, size: Size, choice: Choice) -> tuple[int, Choice, OwnStep] | None:
        """Measure a choice; return its row in the table and its step, None where it fails."""
        if not self._has_time(f"{OURS}, {choice}", OURS, choice.compiled):
            return None
        self.measured.add((size, choice))
        with (
            left_out(self.results, f"{OURS}, {size.name}, {choice}"),
            self.clock.learning(OURS, choice.compiled),
        ):
            gc.collect()  # or others that end meanwhile would count as memory saved
            others = allocated(self.device)
            step = own_step(size, choice, self.device, self.folder)
            warm_up(step, self.extent.warm_up)
            taken = milliseconds(step, self.extent.steps, self.device)
            self._row(size, OURS, choice, taken, peak_gigabytes(self.device, others))
            return len(self.table.rows) - 1, choice, step
        return None

    def _again(self, size: Size, best: tuple[int, Choice, OwnStep] | None) -> None:
        """Measure the best choice of a round again, if no other of that size is faster."""
        if best is None or self.clock.left() < 0:
            return
        row, _, step = best
        if self._ms(row) > min(self._eager(size).values(), default=math.inf):
            return
        with left_out(self.results, f"row {row + 1} again"):
            warm_up(step, 1)
            taken = milliseconds(step, self.extent.steps, self.device)
            self.results.fill(self.table, row, AGAIN, taken)

    def _peer(self, size: Size, compiled: bool) -> None:
        if self.python is None or (compiled and self.device == "cpu"):  # it compiles on cards only
            return
        how = "compiled" if compiled else "eager"
        if not self._has_time(f"{PEER}, {how}", PEER, compiled):
            return
        if self.device == "cuda":
            torch.cuda.empty_cache()  # both are on the card at once
        found: dict[str, Any] = {}
        with left_out(self.results, f"{PEER}, {size.name}, {how}"):
            self.peer = self.peer or Peer(self.python)
            self.peer.wait(self.clock.left())
            with self.clock.learning(PEER, compiled):
                found = self.peer.ask(self._question(size, compiled), self.clock.left())
            choice = Choice(found["precision"], channels_last=False, compiled=compiled)
            self._row(size, PEER, choice, found["ms"], found["gigabytes"])
        if not found:
            self._end_peer()  # what failed may leave it unable to go on; the next one is new

    def _end_peer(self) -> None:
        if self.peer is not None:
            self.peer.close()
        self.peer = None

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
            self.skipped.append(what)
        return enough

    def _row(
        self,
        size: Size,
        who: str,
        choice: Choice,
        taken: float,
        gigabytes: float | None,
    ) -> None:
        if size not in self.work:
            self.work[size] = size.teraflops()
        reached = 1000 * self.work[size] / taken
        rate = self.rates.get(choice.precision)
        share = None if rate is None else 100 * reached / rate
        compiled = "yes" if choice.compiled else "no"
        how = (choice.precision, choice.order, compiled)
        figures = (taken, None, gigabytes, reached, share)
        self.results.row(self.table, size.name, size.batch, who, *how, *figures)


def product_rate(precision: str, device: str) -> float:
    """Return the TFLOP/s of a product of two large square matrices."""
    rows, dtype = _PRODUCT[device], getattr(torch, precision)
    left, right = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
    warm_up_over(lambda: left @ right, _WARM_UP)
    taken = milliseconds_over(lambda: left @ right, _TIMED, device)
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
    results.finish()


if __name__ == "__main__":
    main()
