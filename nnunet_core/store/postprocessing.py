"""What postprocessors decided on validation cases: a file in the model folder for each choice of
folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_core.errors import StorageError
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.runtime import files
from nnunet_core.store.foreign_postprocessing import foreign_state, is_foreign
from nnunet_core.store.models import Model

_FOREIGN = "largest_component"  # the only postprocessing that v1 and v2 know


class PostprocessingRecord(files.Document):
    """What a postprocessor decided on validation cases.

    Attributes:
        component: The postprocessor.
        folds: Whose validation cases it saw; empty where it saw a folder.
        weights: {fold: digest of its weights file}; in an ensemble, `VARIANT/CONFIGURATION fold`.
        inputs: Digest of the predictions that it saw.
        state: Its decision.
    """

    component: ComponentRecord
    folds: tuple[str, ...]
    weights: dict[str, str]
    inputs: str
    state: dict[str, Any]


@dataclass(frozen=True)
class Decision:
    """A postprocessor, and what it does to every label map.

    Attributes:
        reference: Of the component.
        settings: Of the component.
        state: What it decided, or was told.
    """

    reference: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


def read_decision(path: Path) -> Decision:
    """Read a file of postprocessing: of ours, or the postprocessing.json of nnU-Net v1 or v2.

    Raises:
        StorageError: It is none of them, or damaged.
    """
    if path.suffix == ".pkl":
        raise StorageError(
            f"{path} is a pickle of nnU-Net v2, which is not read: pickles can run code. Give "
            "postprocessing.json, which lies beside it and says the same."
        )
    if is_foreign(files.read_json(path)):
        return Decision(_FOREIGN, {}, foreign_state(path))
    record = PostprocessingRecord.read(path)
    return Decision(record.component.reference, record.component.settings, record.state)


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
