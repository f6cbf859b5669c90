"""The jobs of a benchmark: their commands, what each needs, and what identifies it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_builtin.benchmark.graph import Graph, Job, ordered
from nnunet_builtin.benchmark.matrix import Bench
from nnunet_builtin.benchmark.members import Member
from nnunet_builtin.benchmark.subjects import Subject, split_digest
from nnunet_builtin.judging.rows import SURFACES
from nnunet_builtin.judging.runs import Place
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.runtime import files
from nnunet_core.store.summaries import SUMMARY

#: Kinds that plans and prepared cases depend on.
PLANNING_KINDS = ("planner", "preprocessor", "network")
_TRAINING_KINDS = RUN_KINDS[: RUN_KINDS.index("postprocessor")]  # and its validation


def build(
    bench: Bench, members: Mapping[str, Member], subjects: Mapping[str, Subject], root: Path
) -> Graph:
    """Return the jobs of a benchmark: seed by seed, so that a part of it compares all variants.

    Args:
        bench: What is asked for.
        members: Its variants, resolved.
        subjects: Its datasets, opened.
        root: Folder of the benchmark.
    """
    cells = [
        _Jobs(bench, member, subject, root)
        for subject in subjects.values()
        for member in members.values()
    ]
    return ordered(job for seed in bench.seeds for cell in cells for job in cell.of_seed(seed))


@dataclass(frozen=True)
class _Jobs:
    """The jobs of one variant on one dataset."""

    bench: Bench
    member: Member
    subject: Subject
    root: Path

    def of_seed(self, seed: int) -> Iterator[Job]:
        """Yield the jobs of a seed, those included that are shared with other seeds."""
        trained = []
        for name in self.subject.configurations:
            for fold in self.bench.folds:
                *before, training = self._training(name, seed, fold)
                yield from (*before, training)
                trained.append(training)
                if set(self.bench.metrics) - {"Dice"}:
                    yield self._measure(name, seed, fold, training)
        if self.subject.test is not None:
            yield from self._tested(seed, trained)

    def _job(
        self,
        stage: str,
        parts: Iterable[str],
        words: Iterable[str],
        needs: Iterable[Job],
        identity: Mapping[str, str],
        results: Path,
        output: Path | None = None,
        place: Place | None = None,
    ) -> Job:
        name = "/".join([self.subject.dataset.name, stage, *parts])
        before = tuple(needs)
        further = self.bench.arguments.get(stage, [])
        content = {"dataset": self.subject.dataset.digest, **identity}
        content |= {f"after {job.name}": job.identity for job in before}
        if further:
            content["arguments"] = files.digest(further)
        return Job(
            name=name,
            stage=stage,
            words=(*words, *further),
            results=results,
            needs=tuple(job.name for job in before),
            parts=content,
            resources=self.bench.needs(stage),
            output=output,
            place=place,
        )

    def _shared(
        self, stage: str, parts: Iterable[str], words: Iterable[str], needs: Iterable[Job]
    ) -> Job:
        """Return a job that variants of equal plans and prepared cases share."""
        identity = self.member.identity(PLANNING_KINDS)
        words = [stage, str(self.subject.dataset.folder), *words]
        key = files.digest(identity)[:8]
        results = self.root / "results" / "shared"
        return self._job(stage, [key, *parts], words, needs, identity, results)

    def _plan(self) -> Job:
        # `plan` takes no preprocessor, nor its settings
        chosen = "preprocessor" in self.member.entry.choices()
        kinds = ("planner", "network") if chosen else PLANNING_KINDS
        return self._shared("plan", [], self.member.options(kinds), [])

    def _preprocess(self, name: str) -> Job:
        words = [*self.member.options(PLANNING_KINDS), "-c", name]
        return self._shared("preprocess", [name], words, [self._plan()])

    def _training(self, name: str, seed: int, fold: str) -> Iterator[Job]:
        """Yield a training after all jobs that it needs. A cascade needs those of all folds of the
        stage before: every case must be predicted.
        """
        before: list[Job] = []
        previous = self.bench.previous.get(name)
        if previous is not None:
            for number in range(len(self.subject.folds)):
                *others, last = self._training(previous, seed, str(number))
                yield from (*others, last)
                before.append(last)
        yield (plan := self._plan())
        yield (prepared := self._preprocess(name))
        yield self._train(name, seed, fold, [plan, prepared, *before])

    def _train(self, name: str, seed: int, fold: str, before: list[Job]) -> Job:
        member, subject = self.member, self.subject
        place = Place(subject.dataset.name, name, member.name, seed, fold)
        words = ["train", str(subject.dataset.folder), *member.options(), "-c", name]
        words += ["--folds", fold, "--seed", str(seed)]
        if self._keeps_probabilities:
            words.append("--save-probabilities")
        identity = member.identity(_TRAINING_KINDS)
        identity["fold"] = split_digest([subject.split(fold)])
        identity["probabilities"] = str(self._keeps_probabilities)
        folder = self._results(seed) / subject.dataset.name / member.method.name / name
        output = folder / f"fold_{fold}" / "validation" / SUMMARY
        parts = [member.name, name, f"seed_{seed}", f"fold_{fold}"]
        return self._job(
            "train", parts, words, before, identity, self._results(seed), output, place
        )

    def _measure(self, name: str, seed: int, fold: str, training: Job) -> Job:
        """Return the job that measures the surfaces of a validation."""
        assert training.output is not None
        dataset, validation = self.subject.dataset, training.output.parent
        output = validation.parent / SURFACES / SUMMARY
        words = ["evaluate", str(validation), str(self.subject.references)]
        words += ["--dataset", str(dataset.folder), "--output", str(output), "--allow-missing"]
        words += ["--metrics", "surface", "--no-pictures"]
        parts = [self.member.name, name, f"seed_{seed}", f"fold_{fold}"]
        identity = {"tolerances": files.digest(dict(dataset.tolerances))}
        results = self._results(seed)
        return self._job("measure", parts, words, [training], identity, results, output)

    @property
    def _keeps_probabilities(self) -> bool:
        several = len(self.subject.configurations) > 1
        return self.bench.ensembles and several and self.subject.test is not None

    def _results(self, seed: int) -> Path:
        return self.root / "results" / self.member.name / f"seed_{seed}"

    def _tested(self, seed: int, trained: list[Job]) -> Iterator[Job]:
        """Yield what chooses among configurations, predicts the test set, and evaluates that."""
        assert self.subject.test is not None
        (images, labels), results = self.subject.test, self._results(seed)
        dataset, method = self.subject.dataset, self.member.method.name
        folder = results / dataset.name / method
        predicted, chosen = folder / "test", folder / "inference.json"
        parts = [self.member.name, f"seed_{seed}"]
        words = ["find-best", str(dataset.folder), "--variants", method, "--strict"]
        words += ["--configurations", ",".join(self.subject.configurations)]
        words += ["--folds", ",".join(self.bench.folds), "--output", str(chosen)]
        words.append("--ensembles" if self._keeps_probabilities else "--no-ensembles")
        identity = self.member.identity(("postprocessor",))
        select = self._job("select", parts, words, trained, identity, results, chosen)
        digest, *references = self.subject.test_digests
        words = ["predict", str(chosen), str(images), str(predicted), "--overwrite"]
        predict = self._job("predict", parts, words, [select], {"images": digest}, results)
        yield from (select, predict)
        if labels is not None:
            words = ["evaluate", str(predicted), str(labels), "--dataset", str(dataset.folder)]
            identity = {"references": references[0]}
            output = predicted / SUMMARY
            yield self._job("evaluate", parts, words, [predict], identity, results, output)
