"""JSON values beside the arrays: what a planner or a preprocessor passes on, and what a dataset says of its cases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, JsonValue, TypeAdapter, ValidationError

from nnunet_core.errors import DatasetError, StorageError, listed
from nnunet_core.runtime import files

CASES_FILE = "cases.json"
LIMIT = 65_536  # characters of the JSON text: values, no arrays


def _limited(values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    size = len(json.dumps(values, allow_nan=False))
    if size > LIMIT:
        raise ValueError(f"{size} characters of JSON, at most {LIMIT} are allowed")
    return values


#: A JSON object: finite numbers, texts, lists and objects, at most `LIMIT` characters.
JsonMapping = Annotated[dict[str, JsonValue], AfterValidator(_limited)]
_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(JsonMapping)
_CASES: TypeAdapter[dict[str, dict[str, Any]]] = TypeAdapter(dict[str, JsonMapping])


def json_problem(values: Mapping[str, Any]) -> str | None:
    """Return why a mapping cannot be stored as a JSON object, or None if it can."""
    try:
        _OBJECT.validate_python(dict(values))
    except ValidationError as error:
        return _first(error)
    return None


def training_metadata(
    document: Mapping[str, Any], path: Path, names: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return {case: metadata} of the cases that `cases` of a dataset.json describes.

    Args:
        document: Content of dataset.json.
        path: Of dataset.json, for messages.
        names: Of the training cases.

    Raises:
        DatasetError: A case that does not exist, or values that are no JSON objects of at most `LIMIT` characters.
    """
    return _checked(document.get("cases", {}), f"'cases' of {path}", names)


def metadata_beside(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return {case: metadata} of the cases that `cases.json` in a folder of images describes; empty without the file.

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
            f"{where} must map case names to JSON objects of at most {LIMIT} characters: {_first(error)}."
        ) from error
    known = set(names)
    unknown = sorted(set(found) - known)
    if unknown:
        raise DatasetError(
            f"{where} describes cases that are not there: {listed(unknown)}. There are: {listed(sorted(known))}."
        )
    return found


def _first(error: ValidationError) -> str:
    """Return the first problem that pydantic found, and where."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if part not in ("dict", "list"))
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
