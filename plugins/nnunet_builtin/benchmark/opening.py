"""A benchmark whose names are all resolved: what `run`, `status` and the others work on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_builtin.benchmark import matrix, records, scheduling
from nnunet_builtin.benchmark.foreign import FOLDER, kept
from nnunet_builtin.benchmark.graph import Graph, Job
from nnunet_builtin.benchmark.jobs import build
from nnunet_builtin.benchmark.matrix import Bench
from nnunet_builtin.benchmark.members import Member, members
from nnunet_builtin.benchmark.subjects import Subject, subjects
from nnunet_builtin.judging.costs import Spent, costs
from nnunet_builtin.judging.deviations import Wanted, deviations
from nnunet_builtin.judging.judgement import Judgement, judge
from nnunet_builtin.judging.rows import TEST, Row, collect
from nnunet_builtin.judging.runs import Place, Run, find
from nnunet_core.contracts.abilities import NamesConfigurations, ability, built
from nnunet_core.errors import UsageError, listed, nearest, printable
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.needs import check_needs
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.plan import stored_plans
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

    def rows(self) -> list[Row]:
        """Read the scores of finished trainings and test sets; cases of those that failed for good,
        or cannot begin since a job failed that they need, count as the worst there is.
        """
        labels = {
            each.dataset.name: (each.dataset.labels, each.dataset.label_ending)
            for each in self.subjects.values()
        }
        scored = dict(self._scored())
        done = [(p, j.output) for p, j in scored.items() if j.name in self.board.done if j.output]
        gone = {*self.board.failed, *self.graph.blocked_by(set(self.board.failed))}
        failed = {p: self._cases(p) for p, job in scored.items() if job.name in gone}
        return collect(done, labels, failed, self.bench.metrics)

    def _scored(self) -> Iterator[tuple[Place, Job]]:
        """Yield the trainings and evaluations of test sets that scores come from."""
        for job in self.compared():
            if job.place is not None:
                yield job.place, job
        for job in self.graph.jobs.values():
            if job.stage == "evaluate":
                dataset, _, variant, seed = job.name.split("/")
                yield Place(dataset, TEST, variant, int(seed.removeprefix("seed_")), ""), job

    def _cases(self, place: Place) -> Collection[str]:
        """Return the names of the cases that something scores."""
        subject = next(s for s in self.subjects.values() if s.dataset.name == place.dataset)
        if place.configuration == TEST:
            return subject.tested_cases()
        return subject.split(place.fold).val

    def judged(self) -> tuple[Judgement, list[Row]]:
        """Judge what is done; return also all scores."""
        rows, runs = [*self.rows(), *self._foreign()], self.runs()
        tolerances = {each.dataset.name: each.dataset.tolerances for each in self.subjects.values()}
        bench = self.bench
        wanted = Wanted(tuple(bench.variants), bench.seeds, bench.metrics, bench.folds)
        head = deviations(wanted, runs, rows, tolerances)
        cost = costs(runs, self._spent())
        return judge(rows, bench.baseline, bench.rope, head, cost), rows

    def _foreign(self) -> list[Row]:
        """Return what was added of datasets and cases that the benchmark still has."""
        cases = {each.dataset.name: each.scored_cases() for each in self.subjects.values()}
        return [row for row in kept(self.root) if row.case in cases.get(row.dataset, ())]

    def runs(self) -> list[Run]:
        """Return the trainings that are done."""
        ended = {j.place: self.board.done[j.name] for j in self._trained() if j.place}
        found = find((job.place, job.makes) for job in self._trained() if job.place and job.makes)
        return [
            replace(run, host=ended[run.place].host, processor=ended[run.place].processor)
            for run in found
        ]

    def _trained(self) -> list[Job]:
        return [job for job in self.compared() if job.name in self.board.done]

    def _spent(self) -> Iterator[Spent]:
        """Yield what each job took that is done."""
        for job in self.graph.jobs.values():
            ended = records.ended(self.board.folder(job), job.identity)
            if ended is not None and ended.is_done:
                yield Spent(
                    place=job.place,
                    dataset=job.name.split("/")[0],
                    gpu_seconds=ended.gpu_seconds,
                    cpu_seconds=ended.cpu_seconds,
                    peak_memory=ended.peak_memory,
                    uncounted=ended.uncounted,
                )

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
    planned = {files.digest(each.identity(("planner", "network"))): each for each in found.values()}
    for member in planned.values():  # variants of equal plans share them
        for subject in datasets.values():
            _check_configurations(bench, member, subject, space)
    root = space.results.parent / _FOLDER / bench.name
    if taken := sorted({row.variant for row in kept(root)}.intersection(found)):
        raise UsageError(
            f"{listed(taken)}: a variant of {path}, and the name of results that were added. Call "
            f"the variant otherwise, or remove these results from {root / FOLDER}."
        )
    graph = build(bench, found, datasets, root)
    blocked = [info.name for info in registry.plugins() if info.status == "blocked"]
    environment = scheduling.environment_of(space.raw, space.preprocessed, blocked)
    board = scheduling.Board(graph, root, executor, resolved.reference, bench.retries, environment)
    return Opened(bench, found, datasets, graph, board, root)


def words(bench: Path, workspace: Path | None) -> str:
    """Return what follows a command that is to find the same benchmark."""
    return f"{bench}" if workspace is None else f"{bench} --workspace {workspace}"


def _check_configurations(bench: Bench, member: Member, subject: Subject, space: Workspace) -> None:
    """Refuse what no plans of a variant will have, as far as its planner can tell before it plans,
    or its plans that are there already. What only plans can tell, the job says that follows them.

    Raises:
        UsageError: There is no such configuration.
    """
    planner = member.method.build("planner")
    naming = ability(planner, NamesConfigurations)
    possible = naming.may_plan() if naming else None
    plans = stored_plans(subject.dataset, member.method, space)
    for name in bench.with_previous(subject.configurations):
        if possible is not None and name not in possible:
            raise UsageError(
                f"There is no configuration '{printable(name)}' in plans of the variant "
                f"{member.name}: its planner, {member.method.components['planner'].reference}, "
                f"plans {', '.join(possible)}.{nearest(name, possible)}"
            )
        if plans is not None:
            plans.configuration(name)
