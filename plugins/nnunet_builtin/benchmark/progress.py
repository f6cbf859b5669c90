"""How far a benchmark is: groups of jobs, why some are stale, and what the rest will take."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nnunet_builtin.benchmark import records
from nnunet_builtin.benchmark.graph import Job
from nnunet_builtin.benchmark.scheduling import Board, State, described
from nnunet_core.contracts.abilities import SeesCards, ability
from nnunet_core.errors import counted, listed, printable
from nnunet_core.runtime.reporting import Reporter

_HOUR = 3600.0


@dataclass(frozen=True)
class Estimate:
    """What the jobs that are left will take, as those like them that are done took.

    Attributes:
        left: Number of jobs that are not done.
        unknown: {stage: jobs of which nothing like them is done yet}; they are in no sum.
        seconds: One after another.
        longest: Of the longest chain of jobs that need each other: nothing makes it shorter.
        gpu_seconds: Seconds times cards.
        bytes: Of the trained folds; prepared cases are not in it.
        running: Jobs that run now.
        guessed: Jobs of which only stale results tell how long they take; they are in the sums.
    """

    left: int
    unknown: Mapping[str, int]
    seconds: float
    longest: float
    gpu_seconds: float
    bytes: int
    running: int
    guessed: int = 0

    def words(self) -> str:
        """Return it as a sentence."""
        if not self.left:
            return "Everything is done."
        parts = []
        if self.left > sum(self.unknown.values()):
            parts.append(
                f"at least {duration(self.longest)}, {duration(self.seconds)} one job after another"
            )
            if self.running:
                parts.append(f"about {duration(self.seconds / self.running)} at this pace")
            if self.gpu_seconds:
                parts.append(f"{self.gpu_seconds / _HOUR:.1f} GPU hours")
            if self.bytes:
                parts.append(f"{_size_for_people(self.bytes)} for trained folds")
        if self.guessed:
            parts.append(f"{counted(self.guessed, 'job')} guessed from stale results")
        if self.unknown:
            names = ", ".join(f"{number} {stage}" for stage, number in self.unknown.items())
            parts.append(f"unknown until the first of its kind is done: {names}")
        return f"Left: {counted(self.left, 'job')}: {'; '.join(parts)}."


def _size_for_people(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def estimate(board: Board) -> Estimate:
    """Estimate from the jobs that are done what the others will take."""
    known, sizes = _known(board, board.done)
    old_known, old_sizes = _known(board, _old(board))
    sizes = {**old_sizes, **sizes}
    guessed = 0
    unknown: Counter[str] = Counter()
    seconds = gpu_seconds = size = 0.0
    chains: dict[str, float] = {}
    left = [job for job in board.graph.jobs.values() if job.name not in board.done]
    for job in left:
        usual = _of(job, known)
        if usual is None:
            usual = _of(job, old_known)
            guessed += usual is not None
        if usual is None:
            unknown[job.stage] += 1
        expected = max(0.0, (usual or 0.0) - _elapsed(board, job))
        seconds += expected
        gpu_seconds += expected * job.resources.gpus
        size += _of(job, sizes) or 0.0
        chains[job.name] = expected + max(
            (chains.get(need, 0.0) for need in job.needs), default=0.0
        )
    longest = max(chains.values(), default=0.0)
    running = len(board.running)
    return Estimate(len(left), unknown, seconds, longest, gpu_seconds, int(size), running, guessed)


def _of(job: Job, values: Mapping[tuple[str, ...], float]) -> float | None:
    """Return the value of what is most like a job."""
    return next((values[key] for key in _keys(job) if key in values), None)


def _old(board: Board) -> dict[str, records.Ended]:
    """Return {name: record} of what was done before something changed."""
    left = [job for job in board.graph.jobs.values() if job.name not in board.done]
    read = {
        job.name: records.read(records.Ended, board.folder(job) / records.ENDED) for job in left
    }
    return {name: ended for name, ended in read.items() if ended is not None and ended.is_done}


def _keys(job: Job) -> list[tuple[str, ...]]:
    """Return what a job is like, the most alike first: its variant, then its dataset, its stage."""
    dataset, configuration = job.name.split("/")[0], _configuration(job)
    variant = job.place.variant if job.place else ""
    return [
        (job.stage, dataset, configuration, variant),
        (job.stage, dataset, configuration),
        (job.stage, configuration),
    ]


def _configuration(job: Job) -> str:
    if job.place is not None:
        return job.place.configuration
    return job.name.split("/")[-1] if job.stage == "preprocess" else ""


def _known(
    board: Board, done: Mapping[str, records.Ended]
) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """Return {what a job is like: mean seconds} and {...: mean bytes of what it made}."""
    seconds: dict[tuple[str, ...], list[float]] = {}
    sizes: dict[tuple[str, ...], list[float]] = {}
    for name, ended in done.items():
        job = board.graph.jobs[name]
        for key in _keys(job):
            seconds.setdefault(key, []).append(ended.seconds)
        if (
            job.makes is not None and job.makes.is_dir() and len(sizes.get(_keys(job)[0], [])) < 3
        ):  # a few tell enough
            size = _size(job.makes)
            for key in _keys(job):
                sizes.setdefault(key, []).append(size)
    return _means(seconds), _means(sizes)


def _means(values: Mapping[tuple[str, ...], Sequence[float]]) -> dict[tuple[str, ...], float]:
    return {key: statistics.fmean(found) for key, found in values.items()}


def _size(folder: Path) -> float:
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def _elapsed(board: Board, job: Job) -> float:
    """Return for how long a job has been running, seconds."""
    path = board.folder(job) / records.BEGAN
    if job.name not in board.running or not path.is_file():
        return 0.0
    return max(0.0, time.time() - path.stat().st_mtime)


def stale(board: Board) -> dict[str, str]:
    """Return {name: what has changed} of the jobs that were done or begun, and have to be anew."""
    found = {}
    for job in board.graph.jobs.values():
        if job.name in board.done or job.name in board.running:
            continue
        began = records.read(records.Began, board.folder(job) / records.BEGAN)
        if began is None:
            continue
        if began.identity != job.identity:
            parts = {*began.parts, *job.parts}
            changed = sorted(p for p in parts if began.parts.get(p) != job.parts.get(p))
            found[job.name] = ", ".join(dict.fromkeys(_plain(part) for part in changed))
        elif (ended := records.ended(board.folder(job), job.identity)) and ended.is_done:
            gone = job.output is not None and not job.output.is_file()
            found[job.name] = f"{job.output} is gone" if gone else "a job that it needs"
    return found


def _plain(part: str) -> str:
    """Return what changed for people: of another job, its stage."""
    return part.split("/")[1] if part.startswith("after ") else part


def stale_lines(board: Board) -> list[str]:
    """Return what is stale for people: a line for each thing that changed and stage."""
    alike: dict[tuple[str, str], list[Job]] = {}
    for name, changed in stale(board).items():
        job = board.graph.jobs[name]
        alike.setdefault((job.stage, changed), []).append(job)
    return [f"stale: {_named(jobs)}: changed: {changed}" for (_, changed), jobs in alike.items()]


def _named(jobs: Sequence[Job]) -> str:
    if len(jobs) == 1:
        return jobs[0].name
    groups = list(dict.fromkeys(map(_group, jobs)))
    return f"{counted(len(jobs), 'job')}, {listed(groups)}"


def warn_of_idle_cards(board: Board, report: Reporter) -> None:
    """Say where trainings use no card of a machine that has some."""
    left = [job for job in board.graph.jobs.values() if job.name not in board.done]
    on_cpu = [
        job
        for job in left
        if job.stage == "train" and not job.resources.gpus and "--device" not in job.words
    ]
    sees = ability(board.executor, SeesCards) if on_cpu else None
    if sees and (cards := sees.cards()):
        report.warning(
            f"There {counted(len(cards), 'GPU is', 'GPUs are')} here, but trainings ask for none "
            "and run on the CPU. To give each one, write into the file of the benchmark:\n"
            "[resources.train]\ngpus = 1"
        )


def duration(seconds: float) -> str:
    """Return a duration for people: 45 s, 12 min, 3.5 h, 4.2 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < 48 * _HOUR else f"{seconds / 86400:.1f} days"


def _group(job: Job) -> str:
    """Return the name of a job without seed and fold."""
    return "/".join(p for p in job.name.split("/") if not p.startswith(("seed_", "fold_")))


def graph_table(board: Board, title: str) -> Table:
    """Return the graph, a row for the jobs that differ in seed and fold only."""
    states, outdated = board.states(), stale(board)
    groups: dict[str, list[Job]] = {}
    for job in board.graph.jobs.values():
        groups.setdefault(_group(job), []).append(job)
    table = Table(title=title, title_justify="left")
    for name in ("jobs", "number", "needs", "done", "stale", "left", "each needs"):
        table.add_column(name, overflow="fold", justify="left" if "s" in name[-1:] else "right")
    for name, jobs in groups.items():
        needs = sorted({board.graph.jobs[need].stage for job in jobs for need in job.needs})
        done = sum(states[job.name] == "done" for job in jobs)
        old = sum(job.name in outdated for job in jobs)
        each = jobs[0].resources
        cards = f"{counted(each.gpus, 'GPU')}, " if each.gpus else ""
        needed = f"{cards}{counted(each.cpus, 'core')}, {each.memory_gb:g} GB"
        left = len(jobs) - done
        cells = [name, str(len(jobs)), ", ".join(needs), str(done), str(old), str(left), needed]
        table.add_row(*map(printable, cells))
    return table


def states_table(board: Board, title: str) -> Table:
    """Return how many jobs of each stage are in which state."""
    states = board.states()
    stages = dict.fromkeys(job.stage for job in board.graph.jobs.values())
    table = Table(title=title, title_justify="left")
    columns = get_args(State)
    for column in ("stage", *columns):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages:
        counts = Counter(s for n, s in states.items() if board.graph.jobs[n].stage == stage)
        table.add_row(stage, *(str(counts[column]) for column in columns))
    return table


def view(board: Board, title: str, driver: str, command: str) -> RenderableType:
    """Return the whole state for people: numbers, what runs, what failed, what is left.

    Args:
        board: After a look.
        title: Of the table.
        driver: Who runs the benchmark, or nothing.
        command: What runs it.
    """
    lines = [estimate(board).words()]  # first: a small terminal cuts the end
    if driver:
        lines.append(f"run by {driver}")
    elif len(board.done) < len(board.graph.jobs):
        lines.append(f"Nobody runs it now. It goes on with: {command}")
    lines += stale_lines(board)
    lines += [f"running: {name}, {text}" for name, text in _running(board)]
    lines += [f"failed: {described(board, board.graph.jobs[name])}" for name in board.failed]
    return Group(states_table(board, title), Text(printable("\n".join(lines))))


def _running(board: Board) -> Iterator[tuple[str, str]]:
    for name in board.running:
        job = board.graph.jobs[name]
        last = (records.log_tail(board.folder(job), 1) or [""])[0].strip()
        yield name, f"{duration(_elapsed(board, job))}: {last[:120]}"


def document(board: Board) -> dict[str, Any]:
    """Return everything for scripts."""
    states, outdated, found = board.states(), stale(board), estimate(board)
    return {
        "jobs": [
            {
                "name": job.name,
                "stage": job.stage,
                "state": states[job.name],
                "stale": outdated.get(job.name),
                "needs": list(job.needs),
                "command": ["nnunet", *job.command()],
                "resources": job.resources.model_dump(),
                "folder": str(board.folder(job)),
            }
            for job in board.graph.jobs.values()
        ],
        "estimate": {
            "jobs": found.left,
            "unknown": dict(found.unknown),
            "seconds_one_after_another": found.seconds,
            "seconds_at_least": found.longest,
            "gpu_hours": found.gpu_seconds / _HOUR,
            "bytes_of_trained_folds": found.bytes,
        },
    }
