"""What the variants of a benchmark cost: hours, memory, parameters, seconds of a case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_builtin.judging.runs import Place, Run


@dataclass(frozen=True)
class Spent:
    """What one job took.

    Attributes:
        place: The training that it is; None of a job that variants share.
        dataset: Of the job.
        gpu_seconds, cpu_seconds: Of all its tries.
        peak_memory: Largest resident set of one of its processes, bytes.
        uncounted: Tries that were killed and left no record.
    """

    place: Place | None
    dataset: str
    gpu_seconds: float
    cpu_seconds: float
    peak_memory: int
    uncounted: int = 0


@dataclass(frozen=True)
class Cost:
    """What a variant costs on one dataset in one configuration.

    Attributes:
        dataset, configuration, variant: Of what; a configuration and variant that are empty are of
            planning and preparing, which variants share.
        trainings: How many there are records of.
        gpu_hours, cpu_hours: Of one training with its validation, mean; of shared work, all of it.
        peak_memory: The most main memory of one process, bytes.
        gpu_memory: The most memory on a card, bytes; None without a card.
        parameters: Of the network, the most of all folds; None where it is not known.
        seconds_per_case: Of validations, mean; None where it is not known.
        uncounted: Tries that were killed, and whose cost is missing.
    """

    dataset: str
    configuration: str
    variant: str
    trainings: int
    gpu_hours: float
    cpu_hours: float
    peak_memory: int
    gpu_memory: int | None = None
    parameters: int | None = None
    seconds_per_case: float | None = None
    uncounted: int = 0


def costs(runs: Sequence[Run], spent: Iterable[Spent]) -> list[Cost]:
    """Sum up what jobs took; what variants share comes first of each dataset.

    Args:
        runs: Trainings that are done.
        spent: Jobs that are done.
    """
    groups: dict[tuple[str, str, str], list[Spent]] = {}
    for job in spent:
        place = job.place
        key = (place.configuration, place.variant) if place is not None else ("", "")
        groups.setdefault((job.dataset, *key), []).append(job)
    shared_first = sorted(groups, key=lambda key: (key[0], key[1] != "", key[1]))
    return [
        _cost(key, groups[key], [r for r in runs if _key(r.place) == key]) for key in shared_first
    ]


def _key(place: Place) -> tuple[str, str, str]:
    return (place.dataset, place.configuration, place.variant)


def _cost(key: tuple[str, str, str], jobs: Sequence[Spent], runs: Sequence[Run]) -> Cost:
    shared = not key[1]
    count = 1 if shared else len(jobs)
    seconds = [s for run in runs if (s := run.record.seconds_per_case) is not None]
    return Cost(
        *key,
        trainings=0 if shared else len(jobs),
        gpu_hours=sum(job.gpu_seconds for job in jobs) / 3600 / count,
        cpu_hours=sum(job.cpu_seconds for job in jobs) / 3600 / count,
        peak_memory=max(job.peak_memory for job in jobs),
        gpu_memory=max((m for run in runs if (m := run.gpu_memory) is not None), default=None),
        parameters=max((p for run in runs if (p := run.parameters) is not None), default=None),
        seconds_per_case=float(np.mean(seconds)) if seconds else None,
        uncounted=sum(job.uncounted for job in jobs),
    )
