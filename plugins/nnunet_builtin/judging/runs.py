"""The trainings of a benchmark that lie on disk: records, lengths, and how large their networks are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

from nnunet_builtin.benchmark.jobs import Job
from nnunet_core.errors import StorageError
from nnunet_core.registry.records import FILE, FoldRecord
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.models import WEIGHTS
from nnunet_core.store.summaries import SUMMARY

_METRICS = "metrics.jsonl"
_MOST_BYTES = 100_000_000  # of the header of a weights file, as safetensors itself allows
#: What normalisation layers count, and no optimiser changes.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Run:
    """A training that is trained and validated.

    Attributes:
        dataset: Its name.
        configuration, variant, seed, fold: What was trained; the variant as in bench.toml.
        folder: Of the fold.
        record: Its run.json.
    """

    dataset: str
    configuration: str
    variant: str
    seed: int
    fold: str
    folder: Path
    record: FoldRecord

    @property
    def summary(self) -> Path:
        """Return the file with the scores of its validation."""
        return self.folder / VALIDATION / SUMMARY

    @cached_property
    def epochs(self) -> tuple[Mapping[str, object], ...]:
        """Return what its training wrote of each epoch; empty where it keeps no `metrics.jsonl`."""
        path = self.folder / _METRICS
        if not path.is_file():
            return ()
        try:
            return tuple(map(json.loads, path.read_text().splitlines()))
        except ValueError:  # a trainer of a plugin may write what it likes
            return ()

    @cached_property
    def gpu_memory(self) -> int | None:
        """Return the most memory that its training took on a card, bytes; None without one."""
        given = [line.get("gpu_memory_gb") for line in self.epochs]
        found = [float(gb) for gb in given if isinstance(gb, int | float)]
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


def find(jobs: Iterable[Job]) -> Iterator[Run]:
    """Yield the trainings among these jobs that are trained and validated, in order."""
    for job in jobs:
        if job.place is None or job.output is None:
            continue
        folder = job.output.parent.parent
        if (record := _finished(folder / FILE)) is not None:
            yield Run(*astuple(job.place), folder, record)


def _finished(path: Path) -> FoldRecord | None:
    if not path.is_file():
        return None
    try:
        record = FoldRecord.read(path)
    except StorageError:  # the job that makes it anew says what is wrong
        return None
    return record if record.status == "finished" else None
