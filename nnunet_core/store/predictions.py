"""An output folder of predictions: which files are in it, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from nnunet_core.errors import UsageError
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.names import PlainName

RECORD = "predictions.json"


class PredictionRecord(files.Document):
    """What wrote an output folder: predictions of the same identity are kept on a rerun.

    Attributes:
        model, folds: Where the networks lie.
        identity: Of everything that a prediction depends on.
        predictor: How the networks were applied.
        postprocess: Whether label maps were cleaned as it was found useful on the validation cases.
        outputs: Names of the label files that are, or will be, of this identity.
    """

    schema_version: Literal[2] = 2
    model: str
    folds: tuple[str, ...]
    identity: str
    predictor: ComponentRecord
    postprocess: bool
    outputs: tuple[PlainName, ...] = ()


@dataclass(frozen=True)
class Claim:
    """What a prediction makes of its output folder.

    Attributes:
        folder: The output folder.
        record: Who writes it from now on.
        stale: Files of somebody else that are in its place; removed when nothing can be wrong with
            the request any more.
    """

    folder: Path
    record: PredictionRecord
    stale: tuple[Path, ...]

    def needs(self, output: Path, probabilities: bool) -> bool:
        """Return whether a label file, or the probabilities beside it if they are asked for, has to
        be made.
        """
        there = output.is_file() and (not probabilities or _probabilities_file(output).is_file())
        return output in self.stale or not there

    def take(self) -> None:
        """Remove what is stale, and write the record."""
        for file in self.stale:
            for old in (file, _probabilities_file(file)):
                old.unlink(missing_ok=True)
        self.record.write(self.folder / RECORD)


def claim(
    folder: Path, record: PredictionRecord, outputs: Sequence[Path], overwrite: bool
) -> Claim:
    """Say what becomes of an output folder. Changes nothing.

    Args:
        folder: Where the predictions go.
        record: Who asks; its outputs are filled in.
        outputs: The label files that will be made.
        overwrite: Whether predictions of something else may be replaced.

    Raises:
        UsageError: The folder holds predictions of something else.
    """
    path = folder / RECORD
    found = PredictionRecord.read(path) if path.is_file() else None
    named = {folder / name for name in found.outputs} if found is not None else set()
    same = found is not None and found.identity == record.identity
    own = named if same else set()
    stale = sorted(file for file in {*outputs, *named} - own if file.is_file())
    if stale and not overwrite:
        raise UsageError(
            f"{folder} holds predictions of another model or with other options ({stale[0].name}, "
            f"{len(stale)} in all). Choose another output folder, or pass --overwrite to replace "
            "them."
        )
    names = tuple(sorted(file.name for file in own | set(outputs)))
    return Claim(folder, record.model_copy(update={"outputs": names}), tuple(stale))


def write_probabilities(label: Path, probabilities: np.ndarray) -> None:
    """Write `CASE.npz` beside a label file: `probabilities` float16 (K, Z, Y, X)."""
    compact = probabilities.astype(np.float16)
    files.write_with(
        _probabilities_file(label),
        lambda file: np.savez_compressed(file, probabilities=compact),
    )


def _probabilities_file(label: Path) -> Path:
    return label.with_name(f"{label.name.removesuffix('.gz').rpartition('.')[0]}.npz")
