"""What nnU-Net v2 decided on its cross-validation: which components are removed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_core.store.foreign_postprocessing import foreign_state

_FOLDER = re.compile(r"crossval_results_folds_(\w+)")
_FILE = "postprocessing.json"  # its twin, a pickle, is never read
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
    state = foreign_state(path)
    if not state["for_which_classes"]:
        return ("builtin/none", {}), _NOTHING, ()
    note = (
        f"Predictions are cleaned as {path.parent.name}/{_FILE} says, which nnU-Net v2 does with a "
        "command of its own; --no-postprocessing leaves them as the network makes them."
    )
    return ("builtin/largest_component", {}), state, (note,)
