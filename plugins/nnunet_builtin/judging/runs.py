"""The trainings of a benchmark that lie on disk: their records, how long they took, how large their
networks are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunet_core.errors import StorageError
from nnunet_core.registry.records import FILE, FoldRecord
from nnunet_core.store.models import WEIGHTS

_METRICS = "metrics.jsonl"
_MOST_MEMORY = 1e5  # GB of a card
_MOST_BYTES = 100_000_000  # of the header of a weights file, as safetensors itself allows
#: What normalisation layers count, and no optimiser changes.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Place:
    """Which training something is of.

    Attributes:
        dataset, configuration: Names.
        variant: As the benchmark calls it.
        seed, fold: Of the training.
    """

    dataset: str
    configuration: str
    variant: str
    seed: int
    fold: str


@dataclass(frozen=True)
class Run:
    """A training that is trained and validated.

    Attributes:
        place: Which one.
        folder: Of the fold.
        record: Its run.json.
        host, processor: The machine that trained it, and the model of its CPU; empty where nobody
            wrote that down.
    """

    place: Place
    folder: Path
    record: FoldRecord
    host: str = ""
    processor: str = ""

    @cached_property
    def epochs(self) -> tuple[Mapping[str, object], ...]:
        """Return what its training wrote of each epoch; empty where it keeps no `metrics.jsonl`."""
        path = self.folder / _METRICS
        if not path.is_file():
            return ()
        try:
            lines = tuple(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
        except (ValueError, RecursionError):  # a trainer of a plugin may write what it likes
            return ()
        return lines if all(isinstance(line, dict) for line in lines) else ()

    @cached_property
    def gpu_memory(self) -> int | None:
        """Return the most memory that its training took on a card, bytes; None without one."""
        given = [line.get("gpu_memory_gb") for line in self.epochs]
        found = [gb for gb in given if isinstance(gb, int | float) and 0 <= gb < _MOST_MEMORY]
        return int(max(found) * 1e9) if found else None

    @cached_property
    def parameters(self) -> int | None:
        """Return how many numbers its network has learned; None where its weights are missing."""
        path = self.folder / WEIGHTS
        return _parameters(path) if path.is_file() else None


def _parameters(path: Path) -> int | None:
    """Return how many parameters a safetensors file holds, from its header alone."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST_BYTES:
            return None
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return None
    return sum(
        math.prod(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and not name.endswith(_BUFFERS)
    )


def find(places: Iterable[tuple[Place, Path]]) -> list[Run]:
    """Return the trainings whose records say that they are trained and validated.

    Args:
        places: Each with the folder of its fold.
    """
    found = []
    for place, folder in places:
        try:
            record = FoldRecord.read(folder / FILE)
        except StorageError:  # missing or damaged: the job that makes it anew says what is wrong
            continue
        if record.status == "finished":
            found.append(Run(place, folder, record))
    return found
