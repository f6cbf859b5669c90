"""Read what a training left: folds, curves, validation; damage is a fact of the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_builtin.reports.content import CaseScore, Fold, LabelScore
from nnunet_builtin.statistics.intervals import mean_interval
from nnunet_core.data.folders import without_ending
from nnunet_core.data.labels import Labels
from nnunet_core.errors import StorageError
from nnunet_core.registry.records import FoldRecord
from nnunet_core.stages.evaluate import targets
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.models import WEIGHTS, Model
from nnunet_core.store.summaries import SUMMARY, Summary

METRICS = "metrics.jsonl"
_MOST_EPOCHS = 10**9
MEAN = "mean"
_STATES = {"running": "in training", "trained": "trained, not validated"}


def read_folds(model: Model) -> list[Fold]:
    """Return the folds of a model that began."""
    found = model.found_folds()
    names = sorted(found, key=lambda name: (not name.isdigit(), name.zfill(9)))
    return [_fold(model, name, found[name]) for name in names]


def _fold(model: Model, name: str, state: FoldRecord | str) -> Fold:
    folder = model.fold_folder(name)
    epochs, problem = _epochs(folder / METRICS)
    if isinstance(state, str):
        return Fold(name, "broken", state, epochs=epochs)
    cases: list[CaseScore] = []
    if state.status == "finished":
        try:
            cases = _cases(model, folder, name)
        except StorageError as error:
            problem = str(error)
    elif state.status == "running":
        problem = problem or (
            f"in training, {len(epochs)} epochs done: the run with the same options goes on"
        )
    elif state.status == "trained":
        problem = problem or "not validated: the run with the same options does that"
    return Fold(
        name=name,
        state=_STATES.get(state.status, state.status),
        problem=problem,
        record=state,
        epochs=epochs,
        cases=cases,
        parameters=count_parameters(folder / WEIGHTS),
    )


def _epochs(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the lines of metrics.jsonl, and what is wrong with the file."""
    if not path.is_file():
        return [], ""
    lines = []
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            epoch = line.get("epoch") if isinstance(line, dict) else None
            if not isinstance(epoch, int) or not 0 <= epoch < _MOST_EPOCHS:
                raise TypeError("a line without 'epoch'")
            lines.append(line)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return lines, f"{path} is damaged after {len(lines)} epochs: {error}"
    return lines, ""


def _cases(model: Model, folder: Path, fold: str) -> list[CaseScore]:
    """Return the validation cases of a fold.

    Raises:
        StorageError: Their summary.json is missing or damaged.
    """
    document = model.document
    summary = Summary.read(folder / VALIDATION / SUMMARY)
    named = names_of(document.labels)
    found = []
    for case in summary.results.all:
        rows = {target: row for target, row in case.items() if isinstance(row, Mapping)}
        background = rows.get("0") if not document.labels.regions else None
        file = Path(str(case.get("test", ""))).name
        found.append(
            CaseScore(
                case=without_ending(file, document.label_ending),
                fold=fold,
                dice={named[target]: _number(rows.get(target), "Dice") for target in named},
                found=_voxels(rows, named, "Total Positives Test"),
                true=_voxels(rows, named, "Total Positives Reference"),
                background=_number(background, "Total Positives Reference"),
                # where the files are now: a workspace may have been moved
                prediction=folder / VALIDATION / file,
                reference=Path(str(case.get("reference", ""))),
            )
        )
    return found


def names_of(labels: Labels) -> dict[str, str]:
    """Return {target of a summary: name} of the labels or regions, without background."""
    if labels.regions:
        return {name: name for name in labels.region_names}
    found = {target: labels.names.get(int(target), target) for target in targets(labels)}
    return {target: name for target, name in found.items() if target != "0"}


def _voxels(rows: Mapping[str, Any], named: Mapping[str, str], metric: str) -> dict[str, float]:
    return {named[target]: _number(rows.get(target), metric) or 0 for target in named}


def _number(row: Mapping[str, Any] | None, name: str) -> float | None:
    value = None if row is None else row.get(name)
    return None if value is None or math.isnan(value) else float(value)


def label_scores(cases: Sequence[CaseScore], folds: Sequence[str]) -> list[LabelScore]:
    """Return the scores of each label, and of the mean over labels, which comes last; empty
    without cases.
    """
    if not cases:
        return []
    scores = []
    for label in cases[0].dice:
        values = {id(case): case.dice[label] for case in cases}
        missed = sum(1 for case in cases if case.true[label] and not case.found[label])
        invented = sum(1 for case in cases if case.found[label] and not case.true[label])
        scores.append(_label_score(label, cases, values, folds, (missed, invented)))
    means = {id(case): case.mean for case in cases}
    both = (sum(each.missed for each in scores), sum(each.invented for each in scores))
    return [*scores, _label_score(MEAN, cases, means, folds, both)]


def _label_score(
    label: str,
    cases: Sequence[CaseScore],
    values: Mapping[int, float | None],
    folds: Sequence[str],
    wrong: tuple[int, int],
) -> LabelScore:
    def of(fold: str | None) -> np.ndarray:
        own = [values[id(case)] for case in cases if fold in (None, case.fold)]
        return np.array([value for value in own if value is not None], float)

    every = of(None)
    interval, why = (None, "undefined in every case") if not len(every) else mean_interval(every)
    present = [fold for fold in folds if any(case.fold == fold for case in cases)]
    return LabelScore(
        label=label,
        cases=len(every),
        mean=float(every.mean()) if len(every) else None,
        median=float(np.median(every)) if len(every) else None,
        lowest=float(every.min()) if len(every) else None,
        interval=interval,
        no_interval=why,
        missed=wrong[0],
        invented=wrong[1],
        folds={fold: float(of(fold).mean()) if len(of(fold)) else None for fold in present},
    )


def count_parameters(path: Path) -> int | None:
    """Return how many numbers a weights file holds, from its header; None where it has none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
