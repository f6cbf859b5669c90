"""Metadata of cases: `cases` of dataset.json for training cases, `cases.json` beside images to
predict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nnunet_core.data.metadata import LIMIT, JsonMapping, first_problem
from nnunet_core.errors import DatasetError, StorageError, listed
from nnunet_core.runtime import files

CASES_FILE = "cases.json"
_CASES: TypeAdapter[dict[str, dict[str, Any]]] = TypeAdapter(dict[str, JsonMapping])


def training_metadata(
    document: Mapping[str, Any], path: Path, names: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return {case: metadata} of the cases that `cases` of a dataset.json describes.

    Args:
        document: Content of dataset.json.
        path: Of dataset.json, for messages.
        names: Of the training cases.

    Raises:
        DatasetError: A case that does not exist, or values that are no JSON objects of at most
            `LIMIT` characters.
    """
    return _checked(document.get("cases", {}), f"'cases' of {path}", names)


def metadata_beside(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return {case: metadata} of the cases that `cases.json` in a folder of images describes; empty
    without the file.

    Raises:
        DatasetError: The file is invalid; see `training_metadata`.
    """
    path = folder / CASES_FILE
    if not path.is_file():
        return {}
    try:
        document = files.read_json(path)
    except StorageError as error:
        raise DatasetError(str(error)) from error
    if not isinstance(document, dict) or set(document) != {"cases"}:
        raise DatasetError(
            f'{path} must be {{"cases": {{CASE: {{NAME: VALUE}}}}}} and nothing else.'
        )
    return _checked(document["cases"], f"'cases' of {path}", names)


def _checked(content: Any, where: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    try:
        found = _CASES.validate_python(content)
    except ValidationError as error:
        raise DatasetError(
            f"{where} must map case names to JSON objects of at most {LIMIT} characters: "
            f"{first_problem(error)}."
        ) from error
    known = set(names)
    unknown = sorted(set(found) - known)
    if unknown:
        raise DatasetError(
            f"{where} describes cases that are not there: {listed(unknown)}. There are: "
            f"{listed(sorted(known))}."
        )
    return found
