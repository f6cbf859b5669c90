"""The jobs of a benchmark: commands, what must be done before each, and what identifies them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

from nnunet_builtin.benchmark.matrix import Bench, Entry, Resources
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.stages.method import Method, choose
from nnunet_core.store.workspace import Workspace

#: Kinds that plans and prepared cases depend on.
PLANNING_KINDS = ("planner", "preprocessor", "network")
#: v1's cascade trains on what this configuration predicts.
_BEFORE = {"3d_cascade_fullres": "3d_lowres"}


@dataclass(frozen=True)
class Job:
    """One command of `nnunet`.

    Attributes:
        name: Unique, with slashes: `Task004/train/topk/3d_fullres/seed_1/fold_0`.
        stage: One of `matrix.STAGES`.
        words: What follows `nnunet`.
        results: Folder for `nnUNet_results`, where the seed has its own.
        needs: Names of jobs that must be done before.
        identity: Digest of all that decides what it makes.
        resources: What it needs.
    """

    name: str
    stage: str
    words: tuple[str, ...]
    results: Path
    needs: tuple[str, ...]
    identity: str
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class Member:
    """A variant of the benchmark, resolved.

    Attributes:
        name: In bench.toml.
        entry: Its table there.
        method: What it stands for.
        settings: {kind: {field: value}}, those of the whole benchmark included.
    """

    name: str
    entry: Entry
    method: Method
    settings: Mapping[str, Mapping[str, object]]

    def options(self, kinds: Iterable[str] = RUN_KINDS) -> list[str]:
        """Return the words that make the method on a command line that takes these kinds."""
        words = [word for each in self.entry.variant for word in ("--variant", each)]
        chosen = self.entry.choices()
        words += [word for kind in kinds if kind in chosen for word in (f"--{kind}", chosen[kind])]
        for kind, values in self.settings.items():
            for name, value in values.items():
                text = value if isinstance(value, str) else json.dumps(value)
                words += ["--set", f"{kind}.{name}={text}"]
        return words

    def planning(self) -> str:
        """Return a digest that variants with equal plans and prepared cases share."""
        parts = self.method.components
        chosen = {
            kind: [parts[kind].reference, dict(parts[kind].component.settings)]
            for kind in PLANNING_KINDS
            if kind in parts
        }
        return files.digest([chosen, dict(self.method.preprocessor_settings)])


def members(bench: Bench, registry: Registry) -> dict[str, Member]:
    """Resolve the variants of a benchmark.

    Raises:
        NnunetError: One of them names what does not exist, or has a wrong setting.
    """
    found = {}
    for name, entry in bench.variants.items():
        settings = bench.settings_of(entry)
        variant = entry.variant or ["default"]
        method = choose(registry, variant, entry.choices(), settings)
        method.name  # noqa: B018 - finds a wrong setting
        found[name] = Member(name, entry, method, settings)
    return found


@dataclass(frozen=True)
class Graph:
    """All jobs of a benchmark, each after those that it needs.

    Attributes:
        jobs: {name: job}.
    """

    jobs: Mapping[str, Job]

    def ready(self, done: set[str], gone: set[str]) -> Iterator[Job]:
        """Yield the jobs whose needs are all done, in order.

        Args:
            done: Names of those that are done.
            gone: Names of those that run, or failed for good.
        """
        for job in self.jobs.values():
            if job.name not in done and job.name not in gone and done.issuperset(job.needs):
                yield job

    def blocked_by(self, failed: set[str]) -> set[str]:
        """Return the names of jobs that cannot run since one that they need failed."""
        blocked: set[str] = set()
        for job in self.jobs.values():  # in order: what blocks comes first
            if not blocked.union(failed).isdisjoint(job.needs):
                blocked.add(job.name)
        return blocked


def ordered(jobs: Iterable[Job]) -> Graph:
    """Return the graph of jobs; those of one name and identity, which several variants share, count
    once.

    Raises:
        ValueError: Two jobs of one name differ.
    """
    by_name: dict[str, Job] = {}
    for job in jobs:
        if by_name.setdefault(job.name, job).identity != job.identity:
            raise ValueError(f"two jobs are named {job.name}")
    order = TopologicalSorter({name: job.needs for name, job in by_name.items()}).static_order()
    return Graph({name: by_name[name] for name in order})


def build(bench: Bench, members: Mapping[str, Member], space: Workspace, root: Path) -> Graph:
    """Return the jobs of a benchmark.

    Args:
        bench: What is asked for.
        members: Its variants, resolved.
        space: Where datasets and prepared cases lie; these are shared.
        root: Folder of the benchmark, with results of its own for each seed.
    """
    return ordered(
        job
        for dataset in bench.datasets
        for member in members.values()
        for job in _Jobs(bench, member, dataset, space, root).all()
    )


@dataclass(frozen=True)
class _Jobs:
    """The jobs of one variant on one dataset."""

    bench: Bench
    member: Member
    dataset: str
    space: Workspace
    root: Path

    def all(self) -> Iterator[Job]:
        yield self._plan()
        for name in self._configurations():
            yield self._preprocess(name)
            if name in _BEFORE:
                yield self._preprocess(_BEFORE[name])
        for seed in self.bench.seeds:
            trained = [
                self._train(name, seed, fold)
                for name in self._configurations()
                for fold in self.bench.folds
            ]
            yield from self._before(seed)
            yield from trained
            if self.dataset in self.bench.test:
                yield from self._tested(seed, trained)

    def _configurations(self) -> list[str]:
        return self.bench.configurations or [""]

    def _job(
        self,
        stage: str,
        parts: Iterable[str],
        words: Iterable[str],
        needs: Iterable[Job],
        seed: int | None = None,
    ) -> Job:
        name = "/".join([self._short(), stage, *(part for part in parts if part)])
        results = self.root / "results" / ("shared" if seed is None else f"seed_{seed}")
        needed, command = tuple(job.name for job in needs), (*words,)
        shared = stage in ("plan", "preprocess")
        method = self.member.planning() if shared else self.member.method.name
        identity = files.digest([name, method, *([] if shared else command)])
        resources = self.bench.needs(stage)
        return Job(name, stage, command, results, needed, identity, resources)

    def _short(self) -> str:
        return Path(self.dataset).name

    def _plan(self) -> Job:
        words = ["plan", self.dataset, *self.member.options(("planner", "network"))]
        return self._job("plan", [self.member.planning()], words, [])

    def _preprocess(self, name: str) -> Job:
        words = ["preprocess", self.dataset, *self.member.options(PLANNING_KINDS), *_chosen(name)]
        return self._job("preprocess", [self.member.planning(), name], words, [self._plan()])

    def _train(self, name: str, seed: int, fold: str) -> Job:
        words = ["train", self.dataset, *self.member.options(), *_chosen(name)]
        words += ["--folds", fold, "--seed", str(seed)]
        before = (
            [self._train(_BEFORE[name], seed, f) for f in _all_folds()] if name in _BEFORE else []
        )
        parts = [self.member.name, name, f"seed_{seed}", f"fold_{fold}"]
        return self._job("train", parts, words, [self._preprocess(name), *before], seed)

    def _before(self, seed: int) -> Iterator[Job]:
        """Yield the trainings that cascades need, of all folds: every case must be predicted."""
        for name in self._configurations():
            if name in _BEFORE:
                yield from (self._train(_BEFORE[name], seed, fold) for fold in _all_folds())

    def _tested(self, seed: int, trained: list[Job]) -> Iterator[Job]:
        test, method = self.bench.test[self.dataset], self.member.method.name
        results = self.root / "results" / f"seed_{seed}" / self._short() / method
        predicted, chosen = results / "test", results / "inference.json"
        words = ["find-best", self.dataset, "--variants", method]
        words += ["--folds", ",".join(self.bench.folds), "--output", str(chosen)]
        parts = [self.member.name, f"seed_{seed}"]
        select = self._job("select", parts, words, trained, seed)
        words = ["predict", str(chosen), test.images, str(predicted)]
        predict = self._job("predict", parts, words, [select], seed)
        yield from (select, predict)
        if test.labels is not None:
            words = ["evaluate", str(predicted), test.labels, "--dataset", self.dataset]
            yield self._job("evaluate", parts, words, [predict], seed)


def _chosen(configuration: str) -> list[str]:
    return ["-c", configuration] if configuration else []


def _all_folds() -> list[str]:
    return [str(fold) for fold in range(5)]
