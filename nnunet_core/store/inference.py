"""inference.json: which trained models predict together, and what is done to their label maps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nnunet_core.errors import StorageError, UsageError
from nnunet_core.runtime import files
from nnunet_core.runtime.names import PlainName
from nnunet_core.store.models import FILE as MODEL_FILE
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.postprocessing import PostprocessingRecord

FILE = "inference.json"


class MemberRecord(BaseModel):
    """A model of an inference.json.

    Attributes:
        model: Its folder, from that of the file, so that both may be moved together; or absolute.
        folds: Of its networks.
        weights: {fold: digest of its weights}.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    folds: tuple[PlainName, ...] = Field(min_length=1)
    weights: dict[str, str]


class Score(BaseModel):
    """What was compared.

    Attributes:
        models: VARIANT/CONFIGURATION of its members.
        dice: {label or region: mean Dice over the validation cases}, before postprocessing.
        mean_dice: Mean over the foreground labels, or None when nothing could be scored.
        cases: Number of validation cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...]
    dice: dict[str, float | None]
    mean_dice: float | None
    cases: int


class InferenceDocument(files.Document):
    """What `nnunet find-best` selected.

    Attributes:
        dataset: Its name.
        members: The models that predict; the probabilities of several are averaged.
        postprocessing: What was decided on the validation cases, or None.
        scores: Everything that was compared, the best first.
    """

    schema_version: Literal[1] = 1
    dataset: PlainName
    members: tuple[MemberRecord, ...] = Field(min_length=1)
    postprocessing: PostprocessingRecord | None
    scores: tuple[Score, ...] = ()


def selected(path: Path) -> Path | None:
    """Return the inference.json that a path is, or that the folder of a dataset's models holds;
    None where it is neither.
    """
    if path.suffix == ".json":
        return path
    holds = (path / FILE).is_file() and not (path / MODEL_FILE).is_file()
    return path / FILE if holds else None


def read_inference(path: Path) -> InferenceDocument:
    """Read an inference.json.

    Raises:
        UsageError: There is none.
        StorageError: It is damaged.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}. 'nnunet find-best DATASET' writes one.")
    return InferenceDocument.read(path)


def member_record(model: Model, folds: tuple[str, ...], folder: Path) -> MemberRecord:
    """Return the entry of a model in an inference.json that will lie in `folder`."""
    weights = weights_digests(model.folds(folds))
    return MemberRecord(model=_place(model.folder, folder), folds=folds, weights=weights)


def open_member(record: MemberRecord, path: Path, trusted: bool) -> Model:
    """Open a model of an inference.json, whose path is given.

    Raises:
        UsageError: There is no such model, or a fold is not trained.
        StorageError: A fold was trained anew since.
    """
    model = Model.open(Path(os.path.normpath(path.parent / record.model)), trusted)
    found: Mapping[str, str] = weights_digests(model.folds(record.folds))
    if changed := [name for name in record.folds if found[name] != record.weights.get(name)]:
        raise StorageError(
            f"Fold {', '.join(changed)} of {model.folder} was trained anew since {path} was "
            "written. Run 'nnunet find-best' again."
        )
    return model


def _place(model: Path, folder: Path) -> str:
    """Return the path of a model from a folder, if both lie in one results folder."""
    relative, results = Path(os.path.relpath(model, folder)), model.absolute().parents[2]
    near = relative.parts[:2] != ("..", "..") or folder.absolute().is_relative_to(results)
    return relative.as_posix() if near else str(model.absolute())
