"""postprocessing.json of nnU-Net v1 and v2, as the state of `largest_component`."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nnunet_core.data.metadata import first_problem
from nnunet_core.errors import StorageError
from nnunet_core.runtime import files

_Label = Annotated[int, Field(ge=0, le=65_535)]
_LONGEST = 10_000  # letters of a dict that is written as text
_LARGEST = "remove_all_but_largest_component_from_segmentation"
_NEXT = "Get an intact copy, or do without it: then nothing is cleaned."


class _V1(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    for_which_classes: tuple[_Label | tuple[_Label, ...], ...]
    min_valid_object_sizes: Annotated[str, Field(max_length=_LONGEST)] | None = None


class _V2(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    postprocessing_fns: tuple[str, ...]
    postprocessing_kwargs: tuple[dict[str, Any], ...]


def is_foreign(document: object) -> bool:
    """Return whether the content of a JSON file is a postprocessing.json of nnU-Net v1 or v2."""
    return isinstance(document, dict) and bool(
        {"for_which_classes", "postprocessing_fns"} & {*document}
    )


def foreign_state(path: Path) -> dict[str, Any]:
    """Return what a postprocessing.json of nnU-Net v1 or v2 decided, without paths and scores.

    Raises:
        StorageError: It is something else, or names a function that is not known here.
    """
    document = files.read_json(path)
    try:
        if isinstance(document, dict) and "postprocessing_fns" in document:
            return _state_of_v2(_V2.model_validate(document), path)
        decision = _V1.model_validate(document)
        if decision.min_valid_object_sizes is not None:
            ast.literal_eval(decision.min_valid_object_sizes)
    except (ValidationError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise StorageError(
            f"{path} is no postprocessing.json of nnU-Net: {problem}. {_NEXT}"
        ) from error
    return decision.model_dump(mode="json")


def _state_of_v2(said: _V2, path: Path) -> dict[str, Any]:
    """Return one entry a call, in order; v2 also connects voxels that share an edge or a corner."""
    if unknown := set(said.postprocessing_fns) - {_LARGEST}:
        raise StorageError(
            f"{path} names the function {min(unknown)}; known is {_LARGEST}. {_NEXT}"
        )
    if len(said.postprocessing_fns) != len(said.postprocessing_kwargs):
        raise StorageError(f"{path} has not one set of arguments for each function. {_NEXT}")
    entries = [_classes(arguments, path) for arguments in said.postprocessing_kwargs]
    return {"for_which_classes": entries, "min_valid_object_sizes": None, "corners": True}


def _classes(arguments: Mapping[str, Any], path: Path) -> list[int]:
    """Return the values that are one object."""
    values = _flat(arguments.get("labels_or_regions"))
    if not values or arguments.get("background_label", 0) != 0:
        raise StorageError(
            f"{path} cleans {arguments}, which is none of labels or regions. {_NEXT}"
        )
    return values


def _flat(value: Any) -> list[int]:
    """Return the numbers in a number, list or list of lists."""
    if isinstance(value, list):
        return sorted({number for part in value for number in _flat(part)})
    return [value] if isinstance(value, int) and 0 < value < 1 << 16 else []
