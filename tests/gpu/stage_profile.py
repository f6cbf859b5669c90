"""Stage f: where the time of a training step of ours goes, kernel by kernel."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import Results, asked, left_out
from own_steps import FULL, TINY, Choice, Size, own_runtime, own_step
from stage_steps import MS, OURS
from timing import milliseconds, warm_up
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from nnunet_builtin.computing.computation import computing

WARM_UP, STEPS = 5, 5
#: Rows of a table of kernels or operations.
SHOWN = 20
#: Where stage b has not told which one is best.
DEFAULT = Choice("float16", channels_last=True, compiled=False)
_NAME = 90  # characters of a kernel's name


@dataclass(frozen=True)
class Piece:
    """Something that ran: a kernel on a card, an operation on a CPU.

    Attributes:
        name: Of the kernel or operation.
        start, end: In microseconds.
    """

    name: str
    start: float
    end: float


def busy(pieces: Iterable[Piece]) -> float:
    """Return the microseconds in which at least one piece ran."""
    total, reached = 0.0, float("-inf")
    for piece in sorted(pieces, key=lambda piece: piece.start):
        total += max(0.0, piece.end - max(piece.start, reached))
        reached = max(reached, piece.end)
    return total


def span(pieces: Iterable[Piece]) -> float:
    """Return the microseconds from the first start to the last end."""
    kept = list(pieces)
    if not kept:
        return 0.0
    return max(piece.end for piece in kept) - min(piece.start for piece in kept)


def time_of(pieces: Iterable[Piece]) -> float:
    """Return the microseconds of all pieces together; those at the same time count each."""
    return sum(piece.end - piece.start for piece in pieces)


def totals(pieces: Iterable[Piece]) -> dict[str, tuple[int, float]]:
    """Return how often each name ran and its microseconds, the longest first."""
    counts: dict[str, int] = defaultdict(int)
    times: dict[str, float] = defaultdict(float)
    for piece in pieces:
        counts[piece.name] += 1
        times[piece.name] += piece.end - piece.start
    return {name: (counts[name], times[name]) for name in sorted(times, key=lambda n: -times[n])}


def best_choices(steps: Path, size: Size) -> tuple[list[Choice], str]:
    """Return what to profile, and why: what stage b found fastest.

    It is the fastest eager choice, and a compiled one after it if that is faster still.

    Args:
        steps: Results of stage b; they may be missing.
        size: Network and batch.
    """
    try:
        tables = json.loads(steps.read_text())["tables"]
    except (OSError, ValueError, KeyError):
        tables = []
    rows = [dict(zip(t["columns"], cells, strict=True)) for t in tables for cells in t["rows"]]
    own = [row for row in rows if (row.get("who"), row.get("patch")) == (OURS, size.name)]
    own.sort(key=lambda row: row[MS])
    eager = [row for row in own if row["compiled"] == "no"]
    if not eager:
        return [DEFAULT], f"Stage b has no times of {size.name}: profiled is {DEFAULT}."
    chosen = [_choice(eager[0])]
    if own[0]["compiled"] == "yes":  # after the other: compiling may take longer than there is
        chosen.append(_choice(own[0]))
    return chosen, f"Profiled is what stage b found fastest: {'; '.join(map(str, chosen))}."


def _choice(row: dict[str, Any]) -> Choice:
    return Choice(
        row["precision"],
        channels_last=row["memory order"] == "channels-last",
        compiled=row["compiled"] == "yes",
    )


def profiled(step: Callable[[], object], device: str, steps: int) -> Any:
    """Return the profile of some steps after a warm-up."""
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as found:
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
    return found


def pieces_of(found: Any, device: str) -> list[Piece]:
    """Return what ran: kernels, copies and fills on a card, outermost operations on a CPU."""
    wanted = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    pieces = []
    for event in found.events():
        inner = device == "cpu" and event.cpu_parent is not None
        if event.device_type != wanted or event.is_user_annotation or inner:
            continue
        pieces.append(Piece(event.name, event.time_range.start, event.time_range.end))
    return pieces


def share_of_convolutions(
    operations: dict[str, tuple[int, float]],
    pieces: Iterable[Piece],
) -> float:
    """Return the percent of the time of everything that ran, also of what no operation launched.

    Kernels of PyTorch's compiler are not those of an operation.

    Args:
        operations: See `operations_of`.
        pieces: See `pieces_of`.
    """
    own = sum(time for name, (_, time) in operations.items() if "conv" in name.lower())
    return 100 * own / (time_of(pieces) or 1.0)


def launches_of(found: Any, device: str) -> int:
    """Return how many kernels were launched; on a CPU, how many outermost operations ran."""
    if device == "cpu":
        return len(pieces_of(found, device))
    return sum("LaunchKernel" in event.name for event in found.events())


def operations_of(found: Any, device: str) -> dict[str, tuple[int, float]]:
    """Return calls and own microseconds of operations; on a card, of the kernels they launched."""
    kept = {}
    for event in found.key_averages():
        own = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        driver = event.key.startswith(("cuda", "cuLaunch"))
        if event.device_type == DeviceType.CPU and own > 0 and not driver:
            kept[event.key] = (event.count, float(own))
    return dict(sorted(kept.items(), key=lambda pair: -pair[1][1]))


class Profile:
    """The tables of one choice.

    Args:
        results: Of the stage.
        choice: What is profiled.
        steps: How many of them.
    """

    def __init__(self, results: Results, choice: Choice, steps: int) -> None:
        self.results = results
        self.choice = choice
        self.steps = steps

    def summary(self, unprofiled: float, found: Any, device: str) -> None:
        """Add what a step is made of in few numbers."""
        pieces, operations = pieces_of(found, device), operations_of(found, device)
        if not pieces:
            self.results.note(f"The profiler saw nothing of {self.choice}.")
        length, working = span(pieces) or 1.0, busy(pieces)
        where = "card" if device == "cuda" else "CPU"
        table = self.results.table(f"A step: {self.choice}", "what", "value")
        rows = {
            "ms per step, not profiled": unprofiled,
            "ms per step, profiled": length / 1000 / self.steps,
            f"ms per step in which the {where} works": working / 1000 / self.steps,
            f"idle share of the {where} while profiled, %": 100 * (1 - working / length),
            "share of convolutions, %": share_of_convolutions(operations, pieces),
            "launches per step": launches_of(found, device) / self.steps,
            "kernels, copies and fills per step": len(pieces) / self.steps,
        }
        for what, value in rows.items():
            self.results.row(table, what, value)

    def listing(self, title: str, found: dict[str, tuple[int, float]], whole: float) -> None:
        """Add the longest of what ran, calls and times per step.

        Args:
            title: Of the table.
            found: {name: (calls, microseconds)}, the longest first.
            whole: Microseconds of everything that ran.
        """
        columns = ("name", "calls per step", "ms per step", "% of all")
        table = self.results.table(f"{title}: {self.choice}", *columns)
        for name, (count, time) in list(found.items())[:SHOWN]:
            own = (count / self.steps, time / 1000 / self.steps, 100 * time / (whole or 1.0))
            self.results.row(table, name[:_NAME], *own)


def add_profile(
    results: Results,
    size: Size,
    choice: Choice,
    device: str,
    steps: int,
) -> None:
    """Profile a choice of ours and add its tables."""
    with tempfile.TemporaryDirectory() as folder:
        step = own_step(size, choice, device, Path(folder))
    warm_up(step, min(WARM_UP, steps))
    unprofiled = milliseconds(step, steps, device)
    found = profiled(step, device, steps)
    tables = Profile(results, choice, steps)
    tables.summary(unprofiled, found, device)
    title = "Kernels" if device == "cuda" else "Outermost operations"
    pieces, operations = pieces_of(found, device), operations_of(found, device)
    whole = time_of(pieces)
    tables.listing(title, totals(pieces), whole)
    tables.listing("Operations, with the kernels that they launch", operations, whole)


def main() -> None:
    given = asked(__doc__)
    results = Results("Profile of a training step", given)
    size, steps = (TINY[0], 2) if given.tiny else (FULL[0], STEPS)
    if given.tiny:
        torch.set_num_threads(1)
    choices, why = best_choices(given.output.with_name("b.json"), size)
    results.note(f"{why} Patch {size.name}, batches of {size.batch}.")
    runtime = own_runtime(replace(DEFAULT, precision="bfloat16"), given.device)
    with computing(runtime, deterministic=False):
        for choice in choices:
            with left_out(results, f"profile of {choice}"):
                add_profile(results, size, choice, given.device, steps)
            torch.compiler.reset()
    results.finish()


if __name__ == "__main__":
    main()
