"""What the trainings of a benchmark scored, case by case, as the statistics take it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_builtin.benchmark.graph import Place
from nnunet_builtin.statistics.scores import Scores
from nnunet_core.data.folders import without_ending
from nnunet_core.data.labels import Labels
from nnunet_core.errors import natural_order
from nnunet_core.runtime import files
from nnunet_core.store.summaries import Summary

#: The mean over the labels of a case.
MEAN = "mean"


@dataclass(frozen=True)
class Row:
    """The Dice of one label in one validation case.

    Attributes:
        dataset, configuration, variant, seed, fold: Of the training.
        case, label: Of the score; the label is a name or number, or `mean`.
        dice: None where it is undefined: neither reference nor prediction has the label.
        origin: `validated`; `crashed` where the training failed, which counts as 0; or the name of
            the file that a foreign result came from.
    """

    dataset: str
    configuration: str
    variant: str
    seed: int
    fold: str
    case: str
    label: str
    dice: float | None
    origin: str = "validated"


def collect(
    trained: Iterable[tuple[Place, Path]],
    labels: Mapping[str, tuple[Labels, str]],
    failed: Iterable[Place] = (),
) -> list[Row]:
    """Read the validations of finished trainings.

    Args:
        trained: Each with its summary.json.
        labels: {dataset: (its labels, ending of label files)}.
        failed: Trainings that failed for good.
    """
    rows = [
        row
        for place, path in trained
        for row in _rows(Summary.read(path), place, *labels[place.dataset])
    ]
    return [*rows, *_crashed(rows, failed)]


def _rows(summary: Summary, place: Place, labels: Labels, ending: str) -> list[Row]:
    found = []
    for case in summary.results.all:
        name = without_ending(Path(str(case["test"])).name, ending)
        dice: dict[str, float | None] = {}
        for target, values in case.items():
            if isinstance(values, Mapping) and target != "0":
                label = target if labels.regions else labels.names.get(int(target), target)
                dice[label] = values.get("Dice")
        defined = [value for value in dice.values() if value is not None]
        dice[MEAN] = float(np.mean(defined)) if defined else None
        found += [
            Row(**vars(place), case=name, label=label, dice=value) for label, value in dice.items()
        ]
    return found


def _crashed(rows: Sequence[Row], failed: Iterable[Place]) -> list[Row]:
    """Return rows of Dice 0 for the cases that failed trainings should have validated: those of
    the same fold of any other training.
    """
    found = []
    for place in failed:
        like = {
            (row.case, row.label)
            for row in rows
            if (row.dataset, row.configuration, row.fold)
            == (place.dataset, place.configuration, place.fold)
        }
        found += [
            Row(**vars(place), case=case, label=label, dice=0.0, origin="crashed")
            for case, label in sorted(like)
        ]
    return found


def scores_of(
    rows: Sequence[Row], dataset: str, configuration: str, label: str
) -> dict[str, Scores]:
    """Return {variant: its scores} of the cases that every training of every variant has, of the
    seeds that are complete.
    """
    mine = [
        row
        for row in rows
        if (row.dataset, row.configuration, row.label) == (dataset, configuration, label)
    ]
    table: dict[str, dict[int, dict[str, float | None]]] = {}
    for row in mine:
        table.setdefault(row.variant, {}).setdefault(row.seed, {})[row.case] = row.dice
    every = {row.case for row in mine}
    found = {}
    for variant, seeds in table.items():
        complete = [cases for _, cases in sorted(seeds.items()) if set(cases) == every]
        if complete:
            names = tuple(sorted(every, key=natural_order))
            values = [[np.nan if c[n] is None else c[n] for n in names] for c in complete]
            found[variant] = Scores(np.array(values, float), names)
    return found


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows as a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(Row.__dataclass_fields__)
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if (v := getattr(row, name)) is None else v for name in names])
    files.write_text(path, text.getvalue())
