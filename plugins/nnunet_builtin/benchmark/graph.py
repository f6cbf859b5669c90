"""The graph of a benchmark: jobs, what must be done before each, and in which order they come."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_builtin.benchmark.matrix import Resources
from nnunet_builtin.judging.runs import Place
from nnunet_core.runtime import files

#: Stages whose jobs variants of equal plans share.
SHARED = ("plan", "preprocess")


@dataclass(frozen=True)
class Job:
    """One command of `nnunet`.

    Attributes:
        name: Unique, with slashes: `Task004/train/topk/3d_fullres/seed_1/fold_0`.
        stage: One of `matrix.STAGES`.
        words: What follows `nnunet`.
        results: Folder for `nnUNet_results`: every variant and seed has its own.
        needs: Names of jobs that must be done before.
        parts: {what decides what it makes: digest}.
        resources: What it needs.
        output: A file that it leaves behind, or None.
        place: Of a training.
    """

    name: str
    stage: str
    words: tuple[str, ...] = ()
    results: Path = Path()
    needs: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    output: Path | None = None
    place: Place | None = None

    @property
    def makes(self) -> Path | None:
        """The folder of a trained fold; None for other jobs."""
        return None if self.place is None or self.output is None else self.output.parents[1]

    def command(self) -> tuple[str, ...]:
        """Return the words, with those that its resources ask for, which change no result."""
        needs = self.resources
        if self.stage == "train":
            cards = ("--gpus", str(needs.gpus)) if needs.gpus > 1 else ()
            return (*self.words, "--workers", str(needs.cpus - 1), *cards)
        processes = self.stage in (*SHARED, "evaluate")
        return (*self.words, *(("--processes", str(needs.cpus)) if processes else ()))

    @functools.cached_property
    def identity(self) -> str:
        """Digest of all that decides what it makes."""
        return files.digest([self.name, dict(self.parts)])


@dataclass(frozen=True)
class Graph:
    """All jobs of a benchmark, each after those that it needs.

    Attributes:
        jobs: {name: job}.
    """

    jobs: Mapping[str, Job]

    def ready(self, done: Iterable[str], gone: set[str]) -> Iterator[Job]:
        """Yield the jobs whose needs are all done, in order.

        Args:
            done: Names of those that are done.
            gone: Names of those that run, or failed for good.
        """
        finished = set(done)
        for job in self.jobs.values():
            if job.name not in finished and job.name not in gone and finished.issuperset(job.needs):
                yield job

    def blocked_by(self, failed: set[str]) -> set[str]:
        """Return the names of jobs that cannot run since one that they need failed."""
        return {name for need in failed for name in self.dependents[need]}

    @functools.cached_property
    def dependents(self) -> Mapping[str, tuple[str, ...]]:
        """{name: names of all that need it, directly or not, in order}."""
        direct: dict[str, list[str]] = {name: [] for name in self.jobs}
        for job in self.jobs.values():
            for need in job.needs:
                direct[need].append(job.name)
        place = {name: number for number, name in enumerate(self.jobs)}
        found: dict[str, set[str]] = {}
        for name in reversed(list(self.jobs)):
            found[name] = {*direct[name], *(far for near in direct[name] for far in found[near])}
        return {name: tuple(sorted(after, key=place.__getitem__)) for name, after in found.items()}


def ordered(jobs: Iterable[Job]) -> Graph:
    """Return the graph of jobs, in the order in which they come, but each after its needs; those
    of one name and identity, which several variants share, count once.

    Raises:
        ValueError: Two jobs of one name differ, or jobs need each other.
    """
    by_name: dict[str, Job] = {}
    for job in jobs:
        if by_name.setdefault(job.name, job).identity != job.identity:
            raise ValueError(f"two jobs are named {job.name}")
    found: dict[str, Job] = {}

    def put(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"jobs need each other: {' -> '.join((*above, name))}")
        if name not in found:
            for need in by_name[name].needs:
                put(need, (*above, name))
            found[name] = by_name[name]

    for name in by_name:
        put(name, ())
    return Graph(found)
