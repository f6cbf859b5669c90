"""What `nnunet evaluate` writes beside summary.json: metrics.csv and evaluation.json."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunet_builtin.evaluation.measuring import Measuring
from nnunet_builtin.evaluation.scores import METRICS, Metric, badness, chosen
from nnunet_builtin.evaluation.statistics import (
    Distribution,
    LabelStatistics,
    Row,
    mean_over_labels,
    name_of,
    rows_of,
    summed_up,
    worst_first,
)
from nnunet_builtin.statistics.intervals import LEVEL, RESAMPLES, SEED
from nnunet_builtin.untrusted.spreadsheets import as_text
from nnunet_core.errors import StorageError, natural_order
from nnunet_core.runtime import files
from nnunet_core.stages.evaluate import Compared

FILE, TABLE = "evaluation.json", "metrics.csv"
#: Rows of each label that are listed as its worst.
_WORST = 5
_POLICY = (
    "A label in one of the two maps only: Dice, Surface Dice and Lesion F1 are 0, HD95 and ASSD "
    "infinite; it counts as missed or false, and ranks last. In neither map: every metric is "
    "undefined (null), left out of means, and counted as absent. A mean with an infinite value is "
    "infinite."
)


@dataclass(frozen=True)
class Evaluation:
    """A finished comparison.

    Attributes:
        measuring: How it was measured.
        rows: One per case and label.
        statistics: {target: over all cases}.
        dataset, predictions, references: Where all is from, as the user named it.
    """

    measuring: Measuring
    rows: Sequence[Row]
    statistics: Mapping[str, LabelStatistics]
    dataset: str
    predictions: Path
    references: Path

    @classmethod
    def of(
        cls,
        compared: Sequence[Compared],
        measuring: Measuring,
        ending: str,
        dataset: str,
        folders: tuple[Path, Path],
    ) -> Evaluation:
        """Sum up compared label files, whose names end in `ending`."""
        rows = rows_of(compared, measuring.labels, ending)
        metrics = chosen(measuring.groups)
        statistics = summed_up(rows, metrics, measuring.labels, measuring.tolerances)
        return cls(measuring, rows, statistics, dataset, *folders)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What was measured."""
        return chosen(self.measuring.groups)

    @property
    def cases(self) -> int:
        """Number of cases."""
        return len({row.case for row in self.rows})

    def worst_cases(self, most: int) -> list[tuple[Row, ...]]:
        """Return the rows of the worst cases over all labels, the worst case and row first: of two
        with equal worst labels, the one whose second label is worse.
        """
        cases: dict[str, list[Row]] = {}
        for row in worst_first(self.rows):
            cases.setdefault(row.case, []).append(row)
        by_name = sorted(cases.values(), key=lambda rows: natural_order(rows[0].case))
        ranked = sorted(by_name, key=lambda rows: [badness(r.scores) for r in rows], reverse=True)
        return [tuple(rows) for rows in ranked[:most]]

    def document(self) -> dict[str, Any]:
        """Return evaluation.json without its cases and files."""
        measuring = self.measuring
        names = {target: label.name for target, label in self.statistics.items()}
        return {
            "schema_version": 1,
            "nnunet_core": version("nnunet-core"),
            "dataset": self.dataset,
            "predictions": str(self.predictions),
            "references": str(self.references),
            "n_cases": self.cases,
            "policy": _POLICY,
            "settings": {
                "metrics": list(measuring.groups),
                "surface_tolerance_mm": {
                    names[target]: measuring.tolerances[target] for target in self.statistics
                },
                "lesions": {"matching": "one to one, as many pairs as there can be"}
                | asdict(measuring.lesions),
                "interval": {
                    "of": "mean",
                    "level": LEVEL,
                    "method": "BCa bootstrap over cases",
                    "resamples": RESAMPLES,
                    "seed": SEED,
                    "implementation": f"scipy {version('scipy')}",
                },
            },
            "metrics": {metric.name: metric.described() for metric in self.metrics},
            "mean": {
                metric.name: plain(mean_over_labels(self.statistics, metric.name))
                for metric in self.metrics
                if metric.better != "none"
            },
            "labels": {key: _label(found) for key, found in self.statistics.items()},
        }


def write(evaluation: Evaluation, folder: Path, pictures: Sequence[str]) -> None:
    """Write metrics.csv and evaluation.json into a folder; pictures that an evaluation before drew
    there, and this one did not, are removed.
    """
    files.write_text(folder / TABLE, table(evaluation))
    cases: dict[str, dict[str, Any]] = {}
    for row in evaluation.rows:
        scores = {name: plain(value) for name, value in row.scores.items()}
        cases.setdefault(row.case, {})[row.target] = {"status": row.status, **scores}
    former = _pictures_of(folder)
    document = {**evaluation.document(), "cases": cases, "pictures": list(pictures)}
    files.write_json(folder / FILE, document)
    for name in former - set(pictures):
        (folder / name).unlink(missing_ok=True)


def table(evaluation: Evaluation) -> str:
    """Return a CSV text with one row per case and label; undefined values are empty."""
    first = ["case", "label", "name", "status", "surface_tolerance_mm"]
    names = list(evaluation.rows[0].scores) if evaluation.rows else []
    packages = sorted({metric.package for metric in evaluation.metrics})
    implementation = "; ".join(f"{name} {version(name)}" for name in packages)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*first, *map(_titled, names), "implementation"])
    labels, tolerances = evaluation.measuring.labels, evaluation.measuring.tolerances
    for row in evaluation.rows:
        words = [row.case, row.target, name_of(row.target, labels), row.status]
        known = map(as_text, words)
        scores = ["" if row.scores[name] is None else row.scores[name] for name in names]
        writer.writerow([*known, tolerances[row.target], *scores, implementation])
    return text.getvalue()


def plain(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: infinity as the text `Infinity`, which Python's float()
    and JavaScript's Number() read.
    """
    if value is None or math.isfinite(value):
        return value
    return "Infinity" if value > 0 else "-Infinity"


def _titled(name: str) -> str:
    units = {metric.name: metric.unit for metric in METRICS}
    unit = units.get(name)
    return f"{name} ({unit})" if unit else name


def _label(found: LabelStatistics) -> dict[str, Any]:
    return {
        "name": found.name,
        "surface_tolerance_mm": found.tolerance,
        "n_cases": sum(found.counts.values()),
        **{f"n_{status}": number for status, number in found.counts.items()},
        "metrics": {name: _distribution(metric) for name, metric in found.metrics.items()},
        "worst": [row.case for row in found.worst[:_WORST]],
    }


def _distribution(found: Distribution) -> dict[str, Any]:
    numbers = {
        name: plain(getattr(found, name)) for name in ("mean", "median", "minimum", "maximum")
    }
    return {
        "n": found.n,
        "n_infinite": found.n_infinite,
        **numbers,
        "interval": None if found.interval is None else list(found.interval),
        **({"no_interval": found.note} if found.note else {}),
    }


def _pictures_of(folder: Path) -> set[str]:
    """Return the names of pictures that the evaluation.json of a folder lists."""
    try:
        listed = files.read_json(folder / FILE)["pictures"]
        return {name for name in listed if name == Path(name).name and name.endswith(".png")}
    except (StorageError, KeyError, TypeError):  # there is none, or it is of somebody else
        return set()
