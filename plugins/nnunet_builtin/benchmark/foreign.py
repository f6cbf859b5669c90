"""Results of other programs beside those of a benchmark: summary.json of nnU-Net v1 and v2, and
tables. They come from strangers: every name and number is checked.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from nnunet_builtin.judging.rows import MEAN, METRICS, Row, mean_of, read_csv, write_csv
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.folders import without_ending
from nnunet_core.errors import StorageError, UsageError, listed, nearest, printable
from nnunet_core.runtime import files

FOLDER = "foreign"
_WHOLE = "whole"
_MOST_BYTES, _MOST_ROWS = 100_000_000, 1_000_000
_LONGEST_NAME = 100
_BACKGROUND = ("0", "background")
_OPTIONAL = ("dataset", "variant", "seed", "fold")


@dataclass(frozen=True)
class Source:
    """What a file of results is of, where it does not say so itself.

    Attributes:
        dataset: As the benchmark has it; None where there are several and none is named.
        configuration, variant, seed, fold: Of its rows.
    """

    dataset: str | None
    configuration: str
    variant: str
    seed: int = 0
    fold: str = ""


def read_results(
    path: Path,
    source: Source,
    datasets: Mapping[str, Dataset],
    cases: Mapping[str, Collection[str]] | None = None,
) -> list[Row]:
    """Read the results of another program.

    Args:
        path: A summary.json of nnU-Net v1 or v2, or a CSV with the columns case, label, and either
            metric and value or one for each metric.
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
    read = _summary if path.suffix.lower() == ".json" else _table
    cases = cases or {name: frozenset(each.names) for name, each in datasets.items()}
    rows: list[Row] = []
    for row in read(path, replace(source, variant=source.variant or path.stem), datasets):
        if len(rows) == _MOST_ROWS:
            raise UsageError(f"{path} holds more than {_MOST_ROWS} rows.")
        if row.label not in _BACKGROUND:
            rows.append(_checked(row, path, datasets, cases[row.dataset]))
    if not rows:
        known = ", ".join(METRICS)
        raise UsageError(f"{path} holds no score of a label. Metrics that are read: {known}.")
    _refuse_names(rows, path)
    _refuse_doubles(rows, path)
    _refuse_undefined(rows, path, datasets)
    return [*rows, *_means(rows, datasets)]


def _summary(path: Path, source: Source, datasets: Mapping[str, Dataset]) -> Iterator[Row]:
    """Yield the rows of a summary.json."""
    content = files.read_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if isinstance(results, dict) and isinstance(results.get("all"), list):
        cases = [_case_v1(case, path) for case in results["all"]]
    elif isinstance(content, dict) and isinstance(content.get("metric_per_case"), list):
        cases = [_case_v2(case, path) for case in content["metric_per_case"]]
    else:
        raise UsageError(
            f"{path} is no summary.json of nnU-Net: neither 'results' with 'all' (v1) nor "
            "'metric_per_case' (v2) is there."
        )
    dataset = _dataset(source.dataset, path, datasets)
    for file, labels in cases:
        # paths of whatever machine wrote them
        name = PureWindowsPath(PurePosixPath(file).name).name
        case = without_ending(name, dataset.label_ending)
        for target, values in labels.items():
            if not isinstance(values, Mapping):
                raise UsageError(f"{path}: case {printable(case)} has no metrics of '{target}'.")
            for metric in METRICS.keys() & values.keys():
                place = (dataset.name, source.configuration, source.variant, source.seed)
                value = _number(values[metric], f"{path}: {printable(case)}")
                yield Row(*place, source.fold, case, target, metric, value, "", path.name)


def _case_v1(case: Any, path: Path) -> tuple[str, dict[str, Any]]:
    if not isinstance(case, dict) or not isinstance(case.get("test"), str):
        raise UsageError(f"{path}: an entry of 'all' names no file under 'test'.")
    return case["test"], {k: v for k, v in case.items() if k not in ("test", "reference")}


def _case_v2(case: Any, path: Path) -> tuple[str, dict[str, Any]]:
    name = case.get("prediction_file") if isinstance(case, dict) else None
    if not isinstance(name, str) or not isinstance(case.get("metrics"), dict):
        raise UsageError(f"{path}: an entry has no 'prediction_file' or no 'metrics'.")
    return name, case["metrics"]


def _table(path: Path, source: Source, datasets: Mapping[str, Dataset]) -> Iterator[Row]:
    """Yield the rows of a CSV."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} cannot be read: {error}. Save it in UTF-8.") from error
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True, delimiter=_delimiter(text))
        columns = [str(name).strip() for name in reader.fieldnames or ()]
        metrics = _metrics_of(columns, path)
        reader.fieldnames = columns
        for line in reader:
            cells = {k: (v or "").strip() for k, v in line.items() if isinstance(v, str | None)}
            if None in line:
                raise UsageError(f"{path}, line {reader.line_num}: more cells than columns.")
            yield from _line(cells, metrics, f"{path}, line {reader.line_num}", source, datasets)
    except csv.Error as error:
        raise UsageError(f"{path} is no table: {error}.") from error


def _delimiter(text: str) -> str:
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def _metrics_of(columns: list[str], path: Path) -> list[str]:
    """Return the columns of metrics; none in a table with the columns metric and value."""
    known = ["case", "label", "metric", "value", *_OPTIONAL, "configuration"]
    unknown = [c for c in columns if c not in known and c not in METRICS]
    metrics = [c for c in columns if c in METRICS]
    if len(set(columns)) < len(columns) or unknown or not {"case", "label"} <= set(columns):
        why = f"'{printable(unknown[0])}' is none of them" if unknown else "one is missing or twice"
    elif bool(metrics) == ({"metric", "value"} <= set(columns)):
        why = "it takes either metric and value, or a column for each metric"
    else:
        return metrics
    raise UsageError(
        f"{path} has the columns {printable(', '.join(columns))}: {why}. Columns: case, label; "
        f"metric and value, or {', '.join(METRICS)}; and where it helps {', '.join(_OPTIONAL)}, "
        "configuration."
    )


def _line(
    cells: Mapping[str, str],
    metrics: list[str],
    where: str,
    source: Source,
    datasets: Mapping[str, Dataset],
) -> Iterator[Row]:
    dataset = _dataset(cells.get("dataset") or source.dataset, where, datasets)
    seed = cells.get("seed") or str(source.seed)
    if not seed.isdecimal() or len(seed) > 10:
        raise UsageError(f"{where}: seed is '{printable(seed)}'; it is a number from 0.")
    named = {metric: cells[metric] for metric in metrics}
    if not metrics:
        named = {cells["metric"]: cells["value"]}
    for metric, text in named.items():
        if metric in METRICS:  # others are not judged
            if not text:
                raise UsageError(
                    f"{where}: {metric} is empty. Write {METRICS[metric][1]:g} where the structure "
                    "was missed or the case failed, nan where neither map has it."
                )
            yield Row(
                dataset=dataset.name,
                configuration=cells.get("configuration") or source.configuration,
                variant=cells.get("variant") or source.variant,
                seed=int(seed),
                fold=cells.get("fold") or source.fold,
                case=cells["case"],
                label=cells["label"],
                metric=metric,
                value=_number(text, where),
                origin=Path(where.partition(", line ")[0]).name,
            )


def _dataset(name: str | None, where: object, datasets: Mapping[str, Dataset]) -> Dataset:
    if name is None and len(datasets) == 1:
        return next(iter(datasets.values()))
    if name is not None and name in datasets:
        return datasets[name]
    shown = "no dataset" if name is None else f"the dataset '{printable(name)}'"
    raise UsageError(
        f"{where} names {shown}; those of the benchmark are {', '.join(datasets)}. Name one of "
        "them: --dataset"
    )


def _number(value: Any, where: str) -> float | None:
    """Return a score; None where it is undefined."""
    try:
        found = math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or isinstance(value, bool):
        raise UsageError(f"{where}: '{printable(str(value))}' is no number.")
    return None if math.isnan(found) else found


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
