"""JSON values beside the arrays: what a planner or a preprocessor passes on, and what a dataset
says of its cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, JsonValue, TypeAdapter, ValidationError

LIMIT = 65_536  # characters of the JSON text: values, no arrays


def _limited(values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    size = len(json.dumps(values, allow_nan=False))
    if size > LIMIT:
        raise ValueError(f"{size} characters of JSON, at most {LIMIT} are allowed")
    return values


#: A JSON object: finite numbers, texts, lists and objects, at most `LIMIT` characters.
JsonMapping = Annotated[dict[str, JsonValue], AfterValidator(_limited)]
_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(JsonMapping)


def json_problem(values: Mapping[str, Any]) -> str | None:
    """Return why a mapping cannot be stored as a JSON object, or None if it can."""
    try:
        _OBJECT.validate_python(dict(values))
    except ValidationError as error:
        return first_problem(error)
    return None


def first_problem(error: ValidationError) -> str:
    """Return the first problem that pydantic found, and where."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if part not in ("dict", "list"))
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
