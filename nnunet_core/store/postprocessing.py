"""What postprocessors decided on validation cases: a file in the model folder for each choice of
folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_core.errors import StorageError
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.runtime import files
from nnunet_core.store.models import Model


class PostprocessingRecord(files.Document):
    """What a postprocessor decided on validation cases.

    Attributes:
        component: The postprocessor.
        folds: Whose validation cases it saw.
        weights: {fold: digest of its weights file}.
        inputs: Digest of the predictions that it saw.
        state: Its decision.
    """

    component: ComponentRecord
    folds: tuple[str, ...]
    weights: dict[str, str]
    inputs: str
    state: dict[str, Any]


def postprocessing_file(
    model_folder: Path, component: ComponentRecord, folds: Sequence[str]
) -> Path:
    """Return where the state of a fitted postprocessor lies; each choice of settings and folds has
    its own file.
    """
    name = component.reference.rpartition("/")[2].replace(":", ".")
    key = files.digest([component.reference, dict(component.settings), sorted(folds)])
    return model_folder / "postprocessing" / f"{name}-{key[:8]}.json"


def stored_postprocessing(path: Path) -> PostprocessingRecord | None:
    """Return what was decided before, or None if there is nothing or it is damaged."""
    try:
        return PostprocessingRecord.read(path)
    except StorageError:
        return None


def postprocessing_state(model: Model, weights: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the state that the model's postprocessor was fitted to on the validation cases of
    folds, or of more.

    Args:
        model: Whose postprocessor.
        weights: Of these folds, see `models.weights_digests`.

    Returns:
        None when there is none, or when one of the folds has been trained anew since.
    """
    component = model.document.components["postprocessor"].identity()
    records = (
        PostprocessingRecord.read(path)
        for path in sorted((model.folder / "postprocessing").glob("*.json"))
    )
    fitting = [
        record
        for record in records
        if record.component.identity() == component and weights.items() <= record.weights.items()
    ]
    return min(fitting, key=lambda record: len(record.folds)).state if fitting else None
