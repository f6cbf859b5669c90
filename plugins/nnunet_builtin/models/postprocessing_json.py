"""What nnU-Net decided on the postprocessing of a model."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nnunet_core.data.metadata import first_problem
from nnunet_core.errors import StorageError
from nnunet_core.runtime import files

_Label = Annotated[int, Field(ge=0, le=65_535)]
_LONGEST = 10_000  # letters of a dict that is written as text


class _Decision(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    for_which_classes: tuple[_Label | tuple[_Label, ...], ...]
    min_valid_object_sizes: Annotated[str, Field(max_length=_LONGEST)] | None = None


def read_postprocessing(path: Path) -> dict[str, Any] | None:
    """Return the decision in v1's postprocessing.json as the state of `largest_component`, without
    paths and scores; None if there is no such file.

    Raises:
        StorageError: It is something else.
    """
    if not path.is_file():
        return None
    try:
        decision = _Decision.model_validate(files.read_json(path))
        if decision.min_valid_object_sizes is not None:
            ast.literal_eval(decision.min_valid_object_sizes)
    except (ValidationError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise StorageError(
            f"{path} is no postprocessing.json of nnU-Net: {problem}. Get an intact copy, or "
            "remove it: then nothing is cleaned."
        ) from error
    return decision.model_dump(mode="json")
