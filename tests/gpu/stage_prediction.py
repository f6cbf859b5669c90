"""Stage d of `make gpu`: prediction of one large case, with few and many classes.

This package and nnunetv2. Every prediction runs in a process of its own, so that its peaks of
memory are its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from common import Asked, Results, Table, asked, find_peer, left_out, run_peer, seconds_left

from nnunet_core.runtime.memory import available

COLUMNS = ("side", "classes", "preprocess s", "network s", "export s", "card GB", "host GB")
PARTS = ("preprocess", "network", "export")


@dataclass(frozen=True)
class Sizes:
    """What is predicted.

    Attributes:
        shape, spacing: Of the case; voxels (Z, Y, X), mm.
        prepared_shape: Of the case on the network's grid of 1 mm, voxels.
        patch, poolings, base_features: Of the network.
        few, many: Outputs of the network, background included.
        share: Of the time of the stage, which a prediction with few classes takes at most.
        budget: Seconds of the stage where `measure.py` does not tell; what then runs is stopped,
            and shows what it has.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    prepared_shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    poolings: int
    base_features: int
    few: int
    many: int
    share: float
    budget: float


FULL = Sizes(
    shape=(400, 512, 512),
    spacing=(0.75, 0.78125, 0.78125),
    prepared_shape=(300, 400, 400),
    patch=(128, 128, 128),
    poolings=5,
    base_features=32,
    few=3,
    many=60,
    share=0.3,
    budget=120,
)
TINY = Sizes(
    shape=(32, 32, 32),
    spacing=(0.75, 0.75, 0.75),
    prepared_shape=(24, 24, 24),
    patch=(16, 16, 16),
    poolings=2,
    base_features=4,
    few=3,
    many=10,
    share=0.5,
    budget=60,
)
_LEAST = 15  # seconds that a prediction needs to show anything
_PATIENCE = 15  # seconds for a process to end when its time is up


def needed_memory(sizes: Sizes, classes: int) -> float:
    """Return about how many bytes of the host a prediction fills: float32 probabilities.

    On the network's grid three times while they are averaged; on the original grid twice while
    the largest one is looked for.
    """
    original, prepared = 1, 1
    for old, new in zip(sizes.shape, sizes.prepared_shape, strict=True):
        original, prepared = original * old, prepared * new
    return 4.0 * classes * max(3 * prepared, prepared + 2 * original)


@dataclass(frozen=True)
class Side:
    """Who predicts: a script of this folder in some Python."""

    name: str
    python: str
    script: str

    def predict(self, sizes: Sizes, classes: int, device: str, limit: float) -> dict[str, Any]:
        """Predict in a process of its own for at most `limit` seconds; return what it printed.

        Raises:
            RuntimeError: It failed, or the memory is too small.
        """
        needed, there = needed_memory(sizes, classes) / 1e9, available() / 1e9
        if needed > 0.9 * there:
            raise RuntimeError(f"it needs {needed:.0f} GB of memory, {there:.0f} GB are free")
        wanted = {**asdict(sizes), "classes": classes, "device": device}
        # preprocessing does not depend on the classes
        wanted |= {"prepare": classes == sizes.few, "until": time.time() + limit}
        return run_peer(self.python, self.script, json.dumps(wanted), timeout=limit + _PATIENCE)


def sides_of(given: Asked, results: Results) -> list[Side]:
    """Return this package, and nnunetv2 where it is."""
    sides = [Side("nnunet-core", sys.executable, "own_prediction.py")]
    peer = find_peer(given.peer)
    if peer is None:
        results.note("nnunetv2 left out: it is not installed; name a Python with it by --peer")
    else:
        sides.append(Side("nnunetv2", peer, "peer_prediction.py"))
    return sides


def add_row(
    results: Results,
    table: Table,
    what: str,
    sizes: Sizes,
    cells: tuple[str, int],
    found: dict[str, Any],
) -> None:
    """Add the row of a prediction, and say where it was stopped, or what it predicted instead."""
    times = [found.get(part, "") for part in PARTS]
    results.row(table, *cells, *times, found.get("card_gb", ""), found["host_gb"])
    if "stopped" in found:
        results.note(f"{what} stopped in '{found['stopped']}': its time was up")
    if tuple(found.get("shape", sizes.prepared_shape)) != sizes.prepared_shape:
        results.note(f"{what} predicted {found['shape']} voxels: do not compare its times")


def main() -> None:
    given = asked(__doc__ or "")
    sizes = TINY if given.tiny else FULL
    results = Results("Prediction of a large case", given)
    if given.device == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"  # of both sides; cores are few where there is no card
    results.note(
        f"case {sizes.shape} voxels at {sizes.spacing} mm, predicted at {sizes.prepared_shape}, "
        f"patch {sizes.patch}, 8 mirrored versions"
    )
    table = results.table("Prediction", *COLUMNS)
    sides = sides_of(given, results)
    whole = seconds_left(sizes.budget)
    for side in sides:  # ours to its end first, if the time is short
        for classes in (sizes.few, sizes.many):
            what = f"{side.name} with {classes} classes"
            rest = seconds_left(sizes.budget) - _PATIENCE
            if rest < _LEAST:
                results.note(f"{what} left out: the time of the stage is over")
                continue
            limit = min(rest, sizes.share * whole) if classes == sizes.few else rest
            with left_out(results, what):
                found = side.predict(sizes, classes, given.device, limit)
                add_row(results, table, what, sizes, (side.name, classes), found)
    results.finish()


if __name__ == "__main__":
    main()
