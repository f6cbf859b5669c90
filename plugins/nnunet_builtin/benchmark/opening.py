"""A benchmark whose names are all resolved: what `run`, `status` and the others work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_builtin.benchmark import matrix, results, scheduling
from nnunet_builtin.benchmark.graph import Graph, Job
from nnunet_builtin.benchmark.jobs import build
from nnunet_builtin.benchmark.matrix import Bench
from nnunet_builtin.benchmark.members import Member, members
from nnunet_builtin.benchmark.subjects import Subject, subjects
from nnunet_core.contracts.abilities import built
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.needs import check_needs
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.store.workspace import Workspace

_FOLDER = "benchmarks"


@dataclass(frozen=True)
class Opened:
    """A benchmark whose names are all resolved.

    Attributes:
        bench: The content of bench.toml.
        members: {name: variant}.
        subjects: {as written: dataset}.
        graph: All jobs.
        board: Their state, once it is asked to look.
        root: Folder of the benchmark.
    """

    bench: Bench
    members: Mapping[str, Member]
    subjects: Mapping[str, Subject]
    graph: Graph
    board: scheduling.Board
    root: Path

    def rows(self) -> list[results.Row]:
        """Read the scores of finished trainings; cases of those that failed for good count 0."""
        labels = {
            each.dataset.name: (each.dataset.labels, each.dataset.label_ending)
            for each in self.subjects.values()
        }
        done = [
            (job.place, job.output)
            for job in self.compared()
            if job.name in self.board.done and job.place and job.output
        ]
        failed = [
            job.place for job in self.compared() if job.name in self.board.failed and job.place
        ]
        return results.collect(done, labels, failed)

    def compared(self) -> list[Job]:
        """Return the trainings that are compared: those that only cascades need are not."""
        asked = {each.dataset.name: each.configurations for each in self.subjects.values()}
        return [
            job
            for job in self.graph.jobs.values()
            if job.place is not None
            and job.place.configuration in asked[job.place.dataset]
            and job.place.fold in self.bench.folds
        ]


def opened(path: Path, registry: Registry, space: Workspace, report: Reporter) -> Opened:
    """Resolve everything that a bench.toml names, before any job starts.

    Raises:
        NnunetError: Something of it does not exist, cannot be used, or is not installed.
    """
    bench = matrix.read(path)
    resolved = registry.resolve("executor", bench.executor.name)
    check_needs([resolved])
    executor = built(resolved.with_settings(bench.executor.settings))
    found = members(bench, registry)
    datasets = subjects(bench, path.absolute().parent, registry, space, report)
    root = space.results.parent / _FOLDER / bench.name
    graph = build(bench, found, datasets, root)
    blocked = [info.name for info in registry.plugins() if info.status == "blocked"]
    environment = scheduling.environment_of(space.raw, space.preprocessed, blocked)
    board = scheduling.Board(graph, root, executor, resolved.reference, bench.retries, environment)
    return Opened(bench, found, datasets, graph, board, root)
