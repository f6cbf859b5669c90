"""What the trainings of a benchmark scored, case by case, as the statistics take it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_builtin.judging.runs import Place
from nnunet_builtin.statistics.scores import Scores
from nnunet_builtin.untrusted.spreadsheets import as_text, from_text
from nnunet_core.data.folders import without_ending
from nnunet_core.data.labels import Labels
from nnunet_core.errors import StorageError, natural_order
from nnunet_core.runtime import files
from nnunet_core.store.summaries import Summary

#: The mean over the labels of a case.
MEAN = "mean"
#: In place of a configuration: what `find-best` chose, on the images of a test set.
TEST = "test set"
VALIDATED, CRASHED = "validated", "crashed"
#: {metric, as `nnunet evaluate` calls it: (its best value, its worst one)}.
METRICS = {
    "Dice": (1.0, 0.0),
    "Surface Dice": (1.0, 0.0),
    "HD95": (0.0, math.inf),
    "ASSD": (0.0, math.inf),
}
#: Folder of a fold where the surfaces of its validation are measured.
SURFACES = "surfaces"
#: What `nnunet evaluate` writes beside a summary.json.
_MEASURED = Path("evaluation", "evaluation.json")


@dataclass(frozen=True)
class Row:
    """One metric of one label in one case.

    Attributes:
        dataset, configuration, variant, seed, fold: Of the training; `TEST` and no fold of a test
            set.
        case, label: Of the score; the label is a name or number, or `mean`.
        metric: One of METRICS.
        value: None where it is undefined: neither reference nor prediction has the label. A
            distance is infinite where only one has it.
        status: `found`, `missed` or `false` (only the reference, or only the prediction, has the
            label) or `absent`; `crashed` where the training failed, which counts as the worst there
            is; empty of a mean and where nobody says it.
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


def collect(
    trained: Iterable[tuple[Place, Path]],
    labels: Mapping[str, tuple[Labels, str]],
    failed: Mapping[Place, Iterable[str]] | None = None,
    metrics: Sequence[str] = ("Dice",),
) -> list[Row]:
    """Read the validations of finished trainings, and the evaluations of test sets; add the worst
    rows there can be of the cases that those which failed should have scored.

    Args:
        trained: Each with its summary.json.
        labels: {dataset: (its labels, ending of label files)}.
        failed: {what failed for good: names of the cases that it should have scored}.
        metrics: Which ones; what was not measured has no rows.
    """
    rows = [
        row
        for place, path in trained
        for row in _rows(path, place, metrics, *labels[place.dataset])
    ]
    for place, cases in (failed or {}).items():
        rows += crashed(place, cases, list(labels[place.dataset][0].named), metrics)
    return rows


def _rows(
    path: Path, place: Place, metrics: Sequence[str], labels: Labels, ending: str
) -> list[Row]:
    """Return the rows of a summary.json and of what was measured beside it."""
    found = []
    further = _further(path) if set(metrics) - {"Dice"} else {}
    for case in Summary.read(path).results.all:
        name = without_ending(Path(str(case["test"])).name, ending)
        scores = {t: v for t, v in case.items() if isinstance(v, Mapping) and t != "0"}
        for metric in metrics:
            values = []
            for target, counts in scores.items():
                known = {**counts, **further.get(name, {}).get(target, {})}
                if metric in known:
                    values.append(value := _number(known[metric]))
                    label = target if labels.regions else labels.names.get(int(target), target)
                    found.append(_row(place, name, label, metric, value, status_of(counts)))
            if values:
                found.append(_row(place, name, MEAN, metric, mean_of(values)))
    return found


def _row(
    place: Place,
    case: str,
    label: str,
    metric: str,
    value: float | None,
    status: str = "",
    origin: str = VALIDATED,
) -> Row:
    return Row(
        **vars(place),
        case=case,
        label=label,
        metric=metric,
        value=value,
        status=status,
        origin=origin,
    )


def _further(path: Path) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Return {case: {target: {metric: value}}} of what was measured besides a summary.json: of a
    validation in a folder of its own; empty where nothing was.
    """
    for measured in (path.parent.parent / SURFACES / _MEASURED, path.parent / _MEASURED):
        if measured.is_file():
            return files.read_json(measured)["cases"]
    return {}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)  # "Infinity" is infinite


def status_of(counts: Mapping[str, Any]) -> str:
    """Return the status of a score, from v1's counts of voxels; empty where there are none."""
    true, predicted = counts.get("Total Positives Reference"), counts.get("Total Positives Test")
    if true is None or predicted is None:
        return ""
    if true:
        return "found" if predicted else "missed"
    return "false" if predicted else "absent"


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is defined; None of nothing."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def crashed(
    place: Place, cases: Iterable[str], labels: Sequence[str], metrics: Sequence[str]
) -> list[Row]:
    """Return the worst rows there can be of the cases that what failed should have scored."""
    return [
        _row(place, case, label, metric, METRICS[metric][1], CRASHED, CRASHED)
        for case in sorted(cases)
        for metric in metrics
        for label in (*labels, MEAN)
    ]


#: {variant: {seed: {case: rows}}}: one of each fold that the case was validated in.
Complete = dict[str, dict[int, dict[str, list[Row]]]]


def complete(rows: Iterable[Row]) -> Complete:
    """Return the rows of the seeds that are complete: that have what `compared` names, and of these
    cases only.

    Args:
        rows: Of one label and metric of one configuration on one dataset.
    """
    rows = list(rows)
    wanted = compared(rows)
    names = sorted({case for _, case in wanted}, key=natural_order)
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row.variant, row.seed), []).append(row)
    kept: Complete = {}
    for (variant, seed), mine in sorted(found.items(), key=lambda pair: pair[0][1]):
        if names and not lacking(mine, wanted):
            kept.setdefault(variant, {})[seed] = _by_case(mine, names)
    return {variant: kept[variant] for variant, _ in found if variant in kept}


def _by_case(rows: Iterable[Row], names: Sequence[str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        if row.case in found:
            found[row.case].append(row)
    return found


def scores_of(rows: Complete, metric: str) -> dict[str, Scores]:
    """Return {variant: its scores}. Distances are negative, so that larger is better. A case that
    several folds have validated counts once, with the mean of these.
    """
    best, worst = METRICS[metric]
    sign = 1 if best > worst else -1
    found = {}
    for variant, seeds in rows.items():
        means = [
            [mean_of(row.value for row in mine) for mine in cases.values()]
            for cases in seeds.values()
        ]
        values = np.array(means, float)  # None becomes NaN
        found[variant] = Scores(sign * values, tuple(next(iter(seeds.values()))), best)
    return found


def compared(rows: Iterable[Row]) -> set[tuple[str, str]]:
    """Return the (fold, case) that variants are compared on: all that trainings of the benchmark
    have; of foreign results alone, the cases that all of them have, and no folds.
    """
    mine: set[tuple[str, str]] = set()
    foreign: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for row in rows:
        if row.is_foreign:
            foreign.setdefault((row.variant, row.seed), set()).add(("", row.case))
        else:
            mine.add((row.fold, row.case))
    if mine or not foreign:
        return mine
    return set.intersection(*foreign.values())


def lacking(rows: Iterable[Row], wanted: set[tuple[str, str]]) -> set[str]:
    """Return the cases of `compared` that a run lacks, in one of its folds; of a foreign one, whose
    folds nobody knows, those that it has in none.
    """
    rows = list(rows)
    there = {(row.fold, row.case) for row in rows}
    anywhere = {row.case for row in rows if row.is_foreign}
    return {case for fold, case in wanted - there if case not in anywhere}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows as a table."""
    files.write_text(path, csv_text(rows))


def csv_text(rows: Sequence[Row]) -> str:
    """Return all rows as a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    for row in rows:
        cells = ["" if (v := getattr(row, name)) is None else v for name in names]
        writer.writerow(map(as_text, cells))
    return text.getvalue()


def read_csv(path: Path) -> list[Row]:
    """Read what `write_csv` wrote.

    Raises:
        StorageError: It cannot be read, or is no such table.
    """
    try:
        files.check_regular(path)
        lines = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
        return [_read({name: from_text(cell) for name, cell in line.items()}) for line in lines]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise StorageError(
            f"{path} is no table of scores: {type(error).__name__}: {error}. Remove it, and add "
            "the results again."
        ) from error


def _read(cells: Mapping[str, str]) -> Row:
    row = Row(
        **{  # type: ignore[arg-type]
            **cells,
            "seed": int(cells["seed"]),
            "value": float(cells["value"]) if cells["value"] else None,
        }
    )
    best, worst = METRICS[row.metric]
    if row.value is not None and not min(best, worst) <= row.value <= max(best, worst):
        raise ValueError(f"{row.metric} is {row.value}")
    return row
