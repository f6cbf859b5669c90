"""An output folder of predictions: which files are in it, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from nnunet_core.errors import UsageError, listed
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.names import PlainName
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.store.probabilities import probabilities_file

RECORD = "predictions.json"


class PredictionRecord(files.Document):
    """What wrote an output folder: predictions of the same identity are kept on a rerun.

    Attributes:
        model, folds: Where the networks lie.
        identity: Of everything that a prediction depends on.
        predictor: How the networks were applied.
        postprocess: Whether label maps were cleaned as it was found useful on the validation cases.
        outputs: Names of the label files that are, or will be, of this identity.
        replaced: {name of a file of somebody else: digest of its content}: it counts as theirs as
            long as it has this content. Empty when the prediction is finished.
    """

    schema_version: Literal[3] = 3
    model: str
    folds: tuple[str, ...]
    identity: str
    predictor: ComponentRecord
    postprocess: bool
    outputs: tuple[PlainName, ...] = ()
    replaced: dict[PlainName, str] = Field(default_factory=dict)

    def own(self, folder: Path) -> set[Path]:
        """Return the label files that are, or will be, of this identity."""
        return {folder / name for name in self.outputs} - self.others(folder)

    def others(self, folder: Path) -> set[Path]:
        """Return the files of somebody else that have not been replaced yet."""
        return {
            folder / name
            for name, content in self.replaced.items()
            if (folder / name).is_file() and files.file_digest(folder / name) == content
        }


@dataclass(frozen=True)
class Claim:
    """What a prediction makes of its output folder.

    Attributes:
        folder: The output folder.
        record: Who writes it from now on.
        outputs: The label files of this prediction.
        stale: Files of somebody else that are in its place, or that the last prediction made; each
            stays until a new one takes its place, or until everything is predicted.
        foreign: Those of them that no prediction made.
        found: The record that lies there.
    """

    folder: Path
    record: PredictionRecord
    outputs: tuple[Path, ...]
    stale: tuple[Path, ...]
    foreign: tuple[Path, ...]
    found: PredictionRecord | None

    def needs(self, output: Path, probabilities: bool) -> bool:
        """Return whether a label file, or the probabilities beside it if they are asked for, has to
        be made.
        """
        there = output.is_file() and (not probabilities or probabilities_file(output).is_file())
        return output in self.stale or not there

    def is_done(self, probabilities: bool) -> bool:
        """Return whether everything is predicted, and the record says so."""
        written = self.found == self.record and not self.stale
        return written and not any(self.needs(output, probabilities) for output in self.outputs)

    def take(self, report: Reporter) -> None:
        """Write the record; it says which files are not of this prediction yet."""
        if self.foreign:
            report.warning(
                f"{listed([path.name for path in self.foreign])} in {self.folder} were made by no "
                "prediction; they are replaced one by one, as asked (--overwrite)."
            )
        replaced = {path.name: files.file_digest(path) for path in self.stale}
        self.record.model_copy(update={"replaced": replaced}).write(self.folder / RECORD)

    def finish(self) -> None:
        """Remove what the last prediction made of other cases; from now on the record names
        everything.
        """
        for path in set(self.stale) - set(self.outputs):
            probabilities_file(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        self.record.write(self.folder / RECORD)


def claim(
    folder: Path, record: PredictionRecord, outputs: Sequence[Path], overwrite: bool
) -> Claim:
    """Say what becomes of an output folder. Changes nothing.

    Args:
        folder: Where the predictions go.
        record: Who asks; its outputs are filled in.
        outputs: The label files that will be made.
        overwrite: Whether predictions of something else, and foreign files, may be replaced.

    Raises:
        UsageError: The folder holds predictions of something else, or foreign files.
    """
    path = folder / RECORD
    found = PredictionRecord.read(path) if path.is_file() else None
    made = found.own(folder) if found is not None else set()
    others = found.others(folder) if found is not None else set()
    same = found is not None and found.identity == record.identity
    own = made if same else set()
    stale = sorted(file for file in {*outputs, *made, *others} - own if file.is_file())
    foreign = [file for file in stale if file not in made | others]
    if stale and not overwrite:
        what = (
            f"files that no prediction made ({listed([path.name for path in foreign])})"
            if foreign
            else "predictions of another model or with other options "
            f"({stale[0].name}, {len(stale)} in all)"
        )
        raise UsageError(
            f"{folder} holds {what}. Choose another output folder, or pass --overwrite to replace "
            "them, one by one."
        )
    names = tuple(sorted(file.name for file in own | set(outputs)))
    record = record.model_copy(update={"outputs": names})
    return Claim(folder, record, tuple(outputs), tuple(stale), tuple(foreign), found)
