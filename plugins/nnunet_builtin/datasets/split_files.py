"""Folds from files of others: splits_final of nnU-Net v1 and v2, and tables that say which patient
a case is of.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from nnunet_builtin.untrusted.pickles import Limits, read_pickle
from nnunet_core.data.splits import Splits
from nnunet_core.errors import StorageError, UsageError, counted, listed, nearest
from nnunet_core.runtime import files

# 20,000 cases in five folds take less than half of it
_LIMITS = Limits(size=1 << 24, instructions=2_000_000, values=500_000, depth=8)
_FORM = '[{"train": ["case_1", "case_2"], "val": ["case_3"]}, ...]'


def read_folds(path: Path) -> Splits:
    """Read `splits_final.pkl` (v1), `splits_final.json` (v2) or a splits file of this project.

    Raises:
        UsageError: There is no such file, or its ending is neither .pkl nor .json.
        StorageError: Its content is something else than a list of {train, val}.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path} to take folds from.")
    if path.suffix not in (".pkl", ".json"):
        raise UsageError(
            f"Folds are read from .pkl (nnU-Net v1) and .json (v2, or this project), got {path}."
        )
    if path.suffix == ".pkl":
        content = _listed(read_pickle(path, _LIMITS, "Save the folds as JSON instead."))
    else:
        content = files.read_json(path)
    folds = content.get("folds") if isinstance(content, dict) else content
    try:
        return Splits.model_validate({"folds": folds})
    except ValidationError as error:
        raise StorageError(
            f"{path} holds no folds: {_problem(error.errors()[0])}. Expected: {_FORM}."
        ) from error


def read_groups(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return {case: group} from a table: a header line, then case and group (patient) in the first
    two columns.

    Args:
        path: CSV with commas, semicolons or tabs.
        names: Training cases of the dataset; each needs a group.

    Raises:
        UsageError: The file is missing, a line has one column only, a case is unknown, named twice,
            or missing.
    """
    groups: dict[str, str] = {}
    known = set(names)
    for line, row in _rows(path):
        if len(row) < 2 or not row[0] or not row[1]:
            raise UsageError(
                f"{path}, line {line}: expected a case and its patient in two columns, got {row}."
            )
        case, group = row[:2]
        if case not in known:
            raise UsageError(
                f"{path}, line {line}: the dataset has no case '{case}'.{nearest(case, known)} "
                "Write names without channel and file ending, as in 'nnunet splits DATASET'."
            )
        if case in groups:
            raise UsageError(
                f"{path}, line {line}: the case '{case}' is named a second time. Name each case "
                "once."
            )
        groups[case] = group
    if missing := sorted(known - set(groups)):
        raise UsageError(
            f"{path} names no patient for {counted(len(missing), 'case')}: {listed(missing)}. "
            "Every case needs one; the first line is the header."
        )
    return groups


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return (line number, stripped fields) of the lines after the header that are not empty."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            reader = csv.reader(file, delimiter=delimiter)
            rows = [(reader.line_num + 1, [field.strip() for field in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a CSV file: {error}") from error
    return [(line, row) for line, row in rows if any(row)]


def _listed(value: Any) -> Any:
    """Return the content of a pickle with arrays and sets as lists."""
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_listed(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _problem(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}"
