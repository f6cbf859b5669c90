"""What a run cost, and where everything in it came from."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_builtin.pages.elements import (
    Column,
    Details,
    Element,
    Facts,
    Section,
    Sentences,
    Table,
    Value,
)
from nnunet_builtin.reports.content import Fold, ModelContent
from nnunet_core.registry.records import FoldRecord

_MILLION = 1_000_000
_UNKNOWN = "unknown"  # of imported models


def cost_section(models: Sequence[ModelContent]) -> Section:
    """Return what the trainings of all folds took."""
    rows: list[list[Value]] = [
        _row(model, fold) for model in models for fold in model.folds if fold.record
    ]
    if not rows:
        return Section("Cost", [])
    columns = [
        *("model", "fold", "training, h", "start to end, h", "GPU, GB", "waits", "parameters, M"),
        *("device", "precision", "threads"),
    ]
    caption = (
        "Training: hours of the epochs, and the share of them that waited for batches; from start "
        "to end, interruptions and the validation count. Memory is measured on NVIDIA GPUs"
    )
    return Section("Cost", [without_empty(columns, rows, caption)])


def without_empty(
    columns: Sequence[str | Column], rows: Sequence[Sequence[Value]], caption: str
) -> Table:
    """Return a table without the columns that hold nothing."""
    kept = [place for place in range(len(columns)) if any(row[place] is not None for row in rows)]
    shown = [[row[place] for place in kept] for row in rows]
    return Table([columns[place] for place in kept], shown, caption)


def _row(model: ModelContent, fold: Fold) -> list[Value]:
    seconds = [line["seconds"] for line in fold.epochs if _is_number(line.get("seconds"))]
    waits = [line["data_wait"] for line in fold.epochs if _is_number(line.get("data_wait"))]
    memory = [
        line["gpu_memory_gb"] for line in fold.epochs if _is_number(line.get("gpu_memory_gb"))
    ]
    record = fold.record
    return [
        model.name,
        fold.name,
        sum(seconds) / 3600 if seconds else None,
        _hours(record) if record else None,
        max(memory) if memory else None,
        f"{sum(waits) / len(waits):.0%}" if waits else None,
        fold.parameters / _MILLION if fold.parameters is not None else None,
        *_computed(record),
    ]


def _computed(record: FoldRecord | None) -> list[str | None]:
    """Return device, precision and threads, as far as they are known."""
    found = (record.device, record.precision, record.threads) if record else (_UNKNOWN,) * 3
    return [None if text == _UNKNOWN else text for text in found]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _hours(record: FoldRecord) -> float | None:
    try:
        started, finished = (
            datetime.datetime.fromisoformat(text) for text in (record.started, record.finished)
        )
    except ValueError:
        return None
    return (finished - started).total_seconds() / 3600


def provenance_section(models: Sequence[ModelContent]) -> Section:
    """Return versions, seeds, digests, and the origin of what came from elsewhere."""
    first = models[0]
    records = [(m.name, fold.record) for m in models for fold in m.folds if fold.record]
    facts: dict[str, object] = {"model folder": str(first.folder.parent)}
    if first.document.origin:
        facts["origin"] = first.document.origin
    if first.document.initial:
        facts["started from"] = first.document.initial.path
    shown = [record for _, record in records]
    facts |= {
        "dataset digest": _values(record.dataset_digest for record in shown),
        "seed": _values(str(record.seed) for record in shown),
        "Python": _values(record.python for record in shown),
        "libraries": _values(_versions(record.libraries) for record in shown),
        "plugins": _values(_versions(record.plugins) for record in shown),
        "started": min((record.started for record in shown), default=""),
        "finished": max((record.finished for record in shown), default=""),
    }
    elements: list[Element] = [Facts({name: value for name, value in facts.items() if value})]
    lines = [
        f"{name} fold {record.fold}: {record.status}, inputs {record.inputs_digest}, model "
        f"{record.model_digest}, weights {record.weights[1] if record.weights else 'none'}"
        for name, record in records
    ]
    if lines:
        elements.append(Details("Digests of the folds", [Sentences(lines)]))
    return Section("Provenance", elements)


def _values(values: Any) -> str:
    """Return the values that occur; of different ones all, since folds may be of different days."""
    return " | ".join(dict.fromkeys(value for value in values if value))


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
