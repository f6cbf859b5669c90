"""What nnU-Net v2 decided on its cross-validation: which components are removed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_builtin.models.v2_plans import V2Postprocessing, read_json
from nnunet_core.errors import StorageError

_FOLDER = re.compile(r"crossval_results_folds_(\w+)")
_FILE = "postprocessing.json"  # its twin, a pickle, is never read
_LARGEST = "remove_all_but_largest_component_from_segmentation"
_NOTHING: dict[str, Any] = {"for_which_classes": []}
#: Reference of a postprocessor with its settings, its state, notes.
Cleaning = tuple[tuple[str, Mapping[str, Any]], Mapping[str, Any], tuple[str, ...]]


def cleaning_of(model: Path, folds: Sequence[str]) -> Cleaning:
    """Return the postprocessing of a folder of v2, if its cross-validation saw every fold.

    Raises:
        StorageError: Its file is damaged, or names a function that is not known here.
    """
    fitting = [
        (len(seen), path)
        for path in sorted(model.glob(f"crossval_results_folds_*/{_FILE}"))
        if (match := _FOLDER.fullmatch(path.parent.name))
        and set(folds) <= (seen := set(match[1].split("_")))
    ]
    if not fitting:
        return ("builtin/none", {}), _NOTHING, ()
    _, path = min(fitting)
    classes = _classes(read_json(V2Postprocessing, path), path)
    if not classes:
        return ("builtin/none", {}), _NOTHING, ()
    note = (
        f"Predictions are cleaned as {path.parent.name}/{_FILE} says, which nnU-Net v2 does with a "
        "command of its own; --no-postprocessing leaves them as the network makes them."
    )
    # v2 also connects voxels that share an edge or a corner
    state = {"for_which_classes": classes, "min_valid_object_sizes": None, "corners": True}
    return ("builtin/largest_component", {}), state, (note,)


def _classes(said: V2Postprocessing, path: Path) -> list[list[int]]:
    """Return the values that are one object, for every step, in order."""
    if unknown := set(said.postprocessing_fns) - {_LARGEST}:
        raise StorageError(
            f"{path} names the function {min(unknown)}; known is {_LARGEST}. Remove the file to "
            "import the model without postprocessing."
        )
    found = []
    for arguments in said.postprocessing_kwargs:
        values = _flat(arguments.get("labels_or_regions"))
        if not values or arguments.get("background_label", 0) != 0:
            raise StorageError(
                f"{path} cleans {arguments}, which is none of labels or regions. Remove the file "
                "to import the model without postprocessing."
            )
        found.append(values)
    return found


def _flat(value: Any) -> list[int]:
    """Return the numbers in a number, list or list of lists."""
    if isinstance(value, list):
        return sorted({number for part in value for number in _flat(part)})
    return [value] if isinstance(value, int) and 0 < value < 1 << 16 else []
