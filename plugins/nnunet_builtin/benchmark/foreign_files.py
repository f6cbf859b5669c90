"""Files of results that other programs wrote, as rows: summary.json of nnU-Net v1 and v2, what
`nnunet evaluate` says of their predictions, and tables.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from nnunet_builtin.judging.rows import METRICS, Row, status_of
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.folders import without_ending
from nnunet_core.errors import StorageError, UsageError, printable
from nnunet_core.runtime import files
from nnunet_core.stages.dataset import is_named

_OPTIONAL = ("dataset", "variant", "seed", "fold")
#: {v2's name of a count: v1's}
_COUNTS = {"n_ref": "Total Positives Reference", "n_pred": "Total Positives Test"}
#: {metric of v1, in mm as ours: why it is none of ours}. Its surfaces are voxels, not areas.
OTHERS = {
    "Hausdorff Distance": "the largest distance of all, which HD95 leaves out",
    "Hausdorff Distance 95": "a percentile over the voxels of both surfaces at once; HD95 is the "
    "larger one of two, over areas",
    "Avg. Surface Distance": "from the prediction to the reference only; ASSD goes both ways",
    "Avg. Symmetric Surface Distance": "the mean of two means over voxels; ASSD is one over the "
    "areas of both surfaces",
}


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


def summary_rows(
    path: Path, source: Source, datasets: Mapping[str, Dataset], others: set[str]
) -> Iterator[Row]:
    """Yield the rows of a JSON file; add the names of metrics that are no rows to `others`."""
    content = files.read_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if isinstance(results, dict) and isinstance(results.get("all"), list):
        cases = [_case_v1(case, path) for case in results["all"]]
    elif isinstance(content, dict) and isinstance(content.get("metric_per_case"), list):
        cases = [_case_v2(case, path) for case in content["metric_per_case"]]
    elif isinstance(content, dict) and isinstance(content.get("cases"), dict):
        cases = [_case(name, labels, path) for name, labels in content["cases"].items()]
    else:
        raise UsageError(
            f"{path} is no summary.json of nnU-Net, and no evaluation.json of 'nnunet evaluate': "
            "neither 'results' with 'all' (v1), nor 'metric_per_case' (v2), nor 'cases' is there."
        )
    dataset = find_dataset(source.dataset, path, datasets)
    for file, labels in cases:
        # paths of whatever machine wrote them
        name = PureWindowsPath(PurePosixPath(file).name).name
        case = without_ending(name, dataset.label_ending)
        for target, values in labels.items():
            if not isinstance(values, Mapping):
                raise UsageError(f"{path}: case {printable(case)} has no metrics of '{target}'.")
            others.update(values.keys() - {*METRICS, "status"})
            counts = {_COUNTS.get(str(key), str(key)): value for key, value in values.items()}
            for metric in (metric for metric in METRICS if metric in values):
                place = (dataset.name, source.configuration, source.variant, source.seed)
                value = _number(values[metric], f"{path}: {printable(case)}")
                yield Row(
                    *place, source.fold, case, target, metric, value, status_of(counts), path.name
                )


def _case_v1(case: Any, path: Path) -> tuple[str, dict[str, Any]]:
    if not isinstance(case, dict) or not isinstance(case.get("test"), str):
        raise UsageError(f"{path}: an entry of 'all' names no file under 'test'.")
    return case["test"], {k: v for k, v in case.items() if k not in ("test", "reference")}


def _case_v2(case: Any, path: Path) -> tuple[str, dict[str, Any]]:
    name = case.get("prediction_file") if isinstance(case, dict) else None
    if not isinstance(name, str) or not isinstance(case.get("metrics"), dict):
        raise UsageError(f"{path}: an entry has no 'prediction_file' or no 'metrics'.")
    return name, case["metrics"]


def _case(name: str, labels: Any, path: Path) -> tuple[str, dict[str, Any]]:
    if not isinstance(labels, dict):
        raise UsageError(f"{path}: case {printable(name)} has no labels.")
    return name, labels


def table_rows(
    path: Path, source: Source, datasets: Mapping[str, Dataset], others: set[str]
) -> Iterator[Row]:
    """Yield the rows of a CSV; add the names of metrics that are no rows to `others`."""
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
            named = {m: cells[m] for m in metrics} or {cells["metric"]: cells["value"]}
            others.update(named.keys() - METRICS.keys())
            yield from _line(cells, named, f"{path}, line {reader.line_num}", source, datasets)
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
    named: Mapping[str, str],
    where: str,
    source: Source,
    datasets: Mapping[str, Dataset],
) -> Iterator[Row]:
    dataset = find_dataset(cells.get("dataset") or source.dataset, where, datasets)
    seed = cells.get("seed") or str(source.seed)
    if not seed.isdecimal() or len(seed) > 10:
        raise UsageError(f"{where}: seed is '{printable(seed)}'; it is a number from 0.")
    for metric, text in named.items():
        if metric in METRICS:
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


def find_dataset(name: str | None, where: object, datasets: Mapping[str, Dataset]) -> Dataset:
    """Return a dataset of the benchmark by its name, its id, or its folder.

    Args:
        name: None takes the only one that there is.
        where: It is named, for messages.
        datasets: {name: dataset}.

    Raises:
        UsageError: There is none, or more than one.
    """
    everything = list(datasets.values())
    hits = everything if name is None else [each for each in everything if _is(each, name)]
    if len(hits) == 1:
        return hits[0]
    shown = "no dataset" if name is None else f"the dataset '{printable(name)}'"
    known = ", ".join(each.name for each in (hits or everything))
    raise UsageError(
        f"{where} names {shown}, which is {'more than one' if hits else 'none'} of those of the "
        f"benchmark: {known}. Name one of them: --dataset"
    )


def _is(dataset: Dataset, name: str) -> bool:
    folder = Path(name).expanduser().resolve()
    return is_named(dataset.name, name) or folder == dataset.folder.resolve()


def _number(value: Any, where: str) -> float | None:
    """Return a score; None where it is undefined."""
    try:
        found = math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or isinstance(value, bool):
        raise UsageError(f"{where}: '{printable(str(value))}' is no number.")
    return None if math.isnan(found) else found
