"""What the trainings of a benchmark scored, case by case, as the statistics take it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from nnunet_builtin.benchmark import runs
from nnunet_builtin.benchmark.jobs import Job, Place
from nnunet_builtin.benchmark.matrix import Bench
from nnunet_builtin.benchmark.measuring import further_scores
from nnunet_builtin.evaluation.scores import METRICS, status_of
from nnunet_builtin.evaluation.statistics import name_of
from nnunet_builtin.statistics.scores import Scores
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.folders import without_ending
from nnunet_core.errors import natural_order
from nnunet_core.runtime import files
from nnunet_core.store.summaries import Summary

#: The mean over the labels of a case.
MEAN = "mean"
#: In place of a configuration: what `find-best` chose, on the images of `test`.
TEST = "test set"
VALIDATED, CRASHED = "validated", "crashed"
#: {name of a metric: what it is}, of those that can be judged.
JUDGED = {metric.name: metric for metric in METRICS if metric.better != "none"}


@dataclass(frozen=True)
class Row:
    """One metric of one label in one case.

    Attributes:
        dataset, configuration, variant, seed, fold: Of the training; `TEST` and no fold of a test
            set.
        case, label: Of the score; the label is a name or number, or `mean`.
        metric: As `nnunet evaluate` calls it, one of JUDGED.
        value: None where it is undefined: neither reference nor prediction has the label. A
            distance is infinite where only one has it.
        status: `found`, `missed`, `false` or `absent`, see `evaluation.scores.status_of`; `crashed`
            where the training failed, which counts as the worst there is; empty of a mean and where
            nobody says it.
        origin: `validated`; `crashed`; or the name of the file that a foreign result came from.
    """

    dataset: str
    configuration: str
    variant: str
    seed: int
    fold: str
    case: str
    label: str
    metric: str
    value: float | None
    status: str = ""
    origin: str = VALIDATED

    @property
    def is_foreign(self) -> bool:
        """Whether another program made it."""
        return self.origin not in (VALIDATED, CRASHED)


def worst(metric: str) -> float:
    """Return what counts where there is no prediction."""
    return 0.0 if JUDGED[metric].better == "higher" else math.inf


def collect(
    bench: Bench,
    jobs: Iterable[Job],
    datasets: Mapping[str, Dataset],
    failed: Collection[str] = (),
) -> list[Row]:
    """Read the scores that are there.

    Args:
        bench: What was asked for.
        jobs: All of its jobs.
        datasets: {name of a dataset: dataset}.
        failed: Names of the jobs that failed for good.
    """
    rows: list[Row] = []
    jobs = list(jobs)
    for run in runs.find(jobs):
        place = (run.dataset, run.configuration, run.variant, run.seed, run.fold)
        rows += _rows(run.summary, place, bench.metrics, datasets[run.dataset])
    for job in jobs:
        if job.stage == "evaluate" and job.output is not None and job.output.is_file():
            dataset, _, variant, seed = job.name.split("/")
            place = (dataset, TEST, variant, int(seed.removeprefix("seed_")), "")
            rows += _rows(job.output, place, bench.metrics, datasets[dataset])
    lost = [job.place for job in jobs if job.name in failed and job.place is not None]
    return [*rows, *_crashed(rows, lost)]


def _rows(
    path: Path,
    place: tuple[str, str, str, int, str],
    metrics: Sequence[str],
    dataset: Dataset,
) -> list[Row]:
    """Return the rows of a summary.json and of what was measured beside it."""
    found = []
    further = further_scores(path) if set(metrics) - {"Dice"} else {}
    for case in Summary.read(path).results.all:
        name = without_ending(Path(str(case["test"])).name, dataset.label_ending)
        scores = {t: v for t, v in case.items() if isinstance(v, Mapping) and t != "0"}
        for metric in metrics:
            values: dict[str, float | None] = {}
            for target, of_target in scores.items():
                known = {**of_target, **further.get((name, target), {})}
                if metric in known:
                    label = name_of(target, dataset.labels)
                    values[label] = known[metric]
                    status = status_of(of_target)
                    found.append(Row(*place, name, label, metric, known[metric], status))
            if values:
                found.append(Row(*place, name, MEAN, metric, mean_of(values.values())))
    return found


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is defined; None of nothing."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _crashed(rows: Sequence[Row], lost: Iterable[Place]) -> list[Row]:
    """Return the worst rows there can be for the cases that failed trainings should have validated:
    those of the same fold of any other training.
    """
    found = []
    for place in lost:
        like = {
            (row.case, row.label, row.metric)
            for row in rows
            if (row.dataset, row.configuration, row.fold)
            == (place.dataset, place.configuration, place.fold)
        }
        found += [
            Row(*astuple(place), *what, worst(what[-1]), CRASHED, CRASHED) for what in sorted(like)
        ]
    return found


def scores_of(
    rows: Sequence[Row], dataset: str, configuration: str, label: str, metric: str = "Dice"
) -> dict[str, Scores]:
    """Return {variant: its scores} of the seeds that are complete: that have every case of
    `compared_cases`. Distances are negative, so that larger is better.
    """
    place = (dataset, configuration, label, metric)
    mine = [r for r in rows if (r.dataset, r.configuration, r.label, r.metric) == place]
    table: dict[str, dict[int, dict[str, float | None]]] = {}
    for row in mine:
        table.setdefault(row.variant, {}).setdefault(row.seed, {})[row.case] = row.value
    names = tuple(sorted(compared_cases(mine), key=natural_order))
    higher = JUDGED[metric].better == "higher"
    found = {}
    for variant, seeds in table.items():
        complete = [cases for _, cases in sorted(seeds.items()) if set(names) <= set(cases)]
        if complete and names:
            values = [[np.nan if (v := c[n]) is None else v for n in names] for c in complete]
            array = np.array(values, float)
            found[variant] = Scores(array if higher else -array, names, 1.0 if higher else 0.0)
    return found


def compared_cases(rows: Iterable[Row]) -> set[str]:
    """Return the cases that variants are compared on: all that trainings of the benchmark have; of
    foreign results alone, those that all of them have.
    """
    mine: set[str] = set()
    foreign: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        if row.is_foreign:
            foreign.setdefault((row.variant, row.seed), set()).add(row.case)
        else:
            mine.add(row.case)
    if mine or not foreign:
        return mine
    return set.intersection(*foreign.values())


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows as a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if (v := getattr(row, name)) is None else v for name in names])
    files.write_text(path, text.getvalue())
