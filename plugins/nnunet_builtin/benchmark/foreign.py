"""Results of other programs beside those of a benchmark; they come from strangers, and every name
and number is checked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_builtin.benchmark.foreign_files import Source, summary_rows, table_rows
from nnunet_builtin.judging.rows import MEAN, METRICS, Row, mean_of, read_csv, write_csv
from nnunet_core.data.dataset import Dataset
from nnunet_core.errors import UsageError, listed, nearest, printable
from nnunet_core.runtime import files

FOLDER = "foreign"
_WHOLE = "whole"
_MOST_BYTES, _MOST_ROWS = 100_000_000, 1_000_000
_LONGEST_NAME = 100
_BACKGROUND = ("0", "background")


@dataclass(frozen=True)
class Results:
    """What a file of results holds.

    Attributes:
        rows: Scores of metrics that a benchmark judges, and their means over labels.
        left_out: Names of its other metrics.
    """

    rows: list[Row]
    left_out: tuple[str, ...]


def read_results(
    path: Path,
    source: Source,
    datasets: Mapping[str, Dataset],
    cases: Mapping[str, Collection[str]] | None = None,
) -> Results:
    """Read the results of another program.

    Args:
        path: A summary.json of nnU-Net v1 or v2, an evaluation.json of ours, or a CSV with the
            columns case, label, and either metric and value or one for each metric.
        source: What its rows are of.
        datasets: {name: dataset}, those of the benchmark.
        cases: {name: cases that it may be of}; None allows those of the trainings.

    Raises:
        UsageError: It is none of these, or names what the datasets do not have.
        StorageError: It cannot be read.
    """
    _check_readable(path)
    if path.stat().st_size > _MOST_BYTES:
        raise UsageError(f"{path} has more than {_MOST_BYTES // 1_000_000} MB; no results have.")
    read = summary_rows if path.suffix.lower() == ".json" else table_rows
    cases = cases or {name: frozenset(each.names) for name, each in datasets.items()}
    rows: list[Row] = []
    others: set[str] = set()
    for row in read(path, replace(source, variant=source.variant or path.stem), datasets, others):
        if len(rows) == _MOST_ROWS:
            raise UsageError(f"{path} holds more than {_MOST_ROWS} rows.")
        if row.label not in _BACKGROUND:
            rows.append(_checked(row, path, datasets, cases[row.dataset]))
    if not rows:
        found = f" Its metrics: {printable(', '.join(sorted(others)))}." if others else ""
        raise UsageError(
            f"{path} holds no score of a label.{found} Metrics that are read: {', '.join(METRICS)}."
        )
    _refuse_names(rows, path)
    _refuse_doubles(rows, path)
    _refuse_undefined(rows, path, datasets)
    return Results([*rows, *_means(rows, datasets)], tuple(sorted(others)))


def _checked(row: Row, path: Path, datasets: Mapping[str, Dataset], cases: Collection[str]) -> Row:
    """Return a row with the name of its label.

    Raises:
        UsageError: The dataset has no such case or label, or no score is like that.
    """
    dataset = datasets[row.dataset]
    if row.case not in cases:
        raise UsageError(
            f"{path}: {dataset.name} has no case '{printable(row.case)}'."
            f"{nearest(row.case, cases)} Only cases that the benchmark scores can be compared."
        )
    labels = dataset.labels
    names = {str(value): name for value, name in labels.names.items()}
    if labels.regions:
        names = {str(r): n for r, n in zip(labels.regions, labels.region_names, strict=True)}
    label = names.get(row.label, row.label)
    if label not in names.values():
        raise UsageError(
            f"{path}: {dataset.name} has no label '{printable(row.label)}'. Labels: "
            f"{listed(list(names.values()))}."
        )
    best, worst = METRICS[row.metric]
    low, high = min(best, worst), max(best, worst)
    if row.value is not None and not low <= row.value <= high:
        raise UsageError(
            f"{path}: {row.metric} of {printable(row.case)} is {row.value:g}; it lies from {low:g} "
            f"to {high:g}."
        )
    return replace(row, label=label)


def _check_readable(path: Path) -> None:
    try:
        files.check_regular(path)
    except OSError as error:
        raise UsageError(
            f"The results {path} cannot be read: {error}. Name a file that is there."
        ) from error


def _refuse_names(rows: list[Row], path: Path) -> None:
    """Refuse what no table can show as the name of a run."""
    for name in sorted({name for row in rows for name in (row.variant, row.fold)}):
        if len(name) > _LONGEST_NAME or not name.isprintable() or name != name.strip():
            raise UsageError(
                f"{path}: '{printable(name[:_LONGEST_NAME])}' is no name of a variant or fold: it "
                f"takes 1 to {_LONGEST_NAME} characters that can be printed. Call it otherwise: "
                "--variant, --fold"
            )


def _refuse_doubles(rows: list[Row], path: Path) -> None:
    seen = set()
    for row in rows:
        key = replace(row, value=None)
        if key in seen:
            raise UsageError(
                f"{path} has {row.metric} of '{row.label}' in {printable(row.case)} twice. Tell "
                "runs apart by the columns seed and fold, or add them one by one (--seed)."
            )
        seen.add(key)


def _refuse_undefined(rows: list[Row], path: Path, datasets: Mapping[str, Dataset]) -> None:
    """Refuse scores that are undefined although the reference has the label: they would count as
    neither missed nor found.
    """
    undefined: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.value is None:
            undefined.setdefault((row.dataset, row.case), []).append(row)
    for (name, case), mine in undefined.items():
        if case not in datasets[name].names:
            continue  # of a test set, whose references are elsewhere
        present = _labels_in(datasets[name], case)
        for row in mine:
            if row.label in present:
                raise UsageError(
                    f"{path}: {row.metric} of '{row.label}' in {case} is undefined, but the "
                    f"reference has it. Write {METRICS[row.metric][1]:g} where it was missed or "
                    "the case failed."
                )


def _labels_in(dataset: Dataset, case: str) -> set[str]:
    """Return the names of the labels, or regions, that the reference of a case has."""
    path = dataset.case(case).label
    values = set() if path is None else set(np.unique(dataset.load_label(path)).tolist())
    return {name for name, own in dataset.labels.named.items() if values.intersection(own)}


def check_configurations(rows: list[Row], known: Mapping[str, Collection[str]], path: Path) -> None:
    """Refuse results of a configuration that a benchmark does not have: nothing would be beside
    them.

    Args:
        rows: All of the file.
        known: {dataset: its configurations}.
        path: The file, for messages.

    Raises:
        UsageError: There is such a row.
    """
    for row in rows:
        if row.configuration not in (names := known[row.dataset]):
            raise UsageError(
                f"{path} is of the configuration '{printable(row.configuration)}', which the "
                f"benchmark does not have of {row.dataset}.{nearest(row.configuration, names)} "
                f"Name what it is compared with: --configuration {' or '.join(names)}"
            )


def lacking(rows: list[Row], datasets: Mapping[str, Dataset]) -> dict[str, set[str]]:
    """Return {dataset: labels that some case has no score of}, whose means are not compared."""
    found: dict[str, set[str]] = {}
    for key, values in _by_case(rows).items():
        if missing := datasets[key.dataset].labels.named.keys() - values.keys():
            found.setdefault(key.dataset, set()).update(missing)
    return found


def _by_case(rows: list[Row]) -> dict[Row, dict[str, float | None]]:
    """Return {row of the mean: {label: score}}."""
    cases: dict[Row, dict[str, float | None]] = {}
    for row in rows:
        if row.label != MEAN:
            cases.setdefault(replace(row, label=MEAN, value=None), {})[row.label] = row.value
    return cases


def _means(rows: list[Row], datasets: Mapping[str, Dataset]) -> list[Row]:
    """Return the means over labels of the cases that have a score of every label: others would be
    means of something else than those beside them.
    """
    return [
        replace(row, value=mean_of(values.values()))
        for row, values in _by_case(rows).items()
        if values.keys() >= datasets[row.dataset].labels.named.keys()
    ]


def keep(rows: list[Row], root: Path) -> list[Path]:
    """Keep rows with a benchmark, a file for each variant, dataset, seed and fold, in the place of
    what was there; rows of no fold stand for all folds. Return the files.
    """
    groups: dict[Path, list[Row]] = {}
    for row in rows:
        run = files.digest([row.variant, row.dataset, row.configuration, row.seed])
        fold = files.digest([row.fold]) if row.fold else _WHOLE
        groups.setdefault(root / FOLDER / f"{run}_{fold}.csv", []).append(row)
    for path, mine in groups.items():
        run = path.name.partition("_")[0]
        write_csv(path, mine)
        for other in set((root / FOLDER).glob(f"{run}_*.csv")) - groups.keys():
            if not mine[0].fold or other.stem.endswith(f"_{_WHOLE}"):
                other.unlink()
    return list(groups)


def kept(root: Path) -> list[Row]:
    """Return the rows that were kept with a benchmark."""
    paths = sorted((root / FOLDER).glob("*.csv"))
    return [row for path in paths for row in read_csv(path)]
