"""An output folder of predictions: which files are in it, and whose they are; and who writes there
now.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from nnunet_core.data.labels import Labels
from nnunet_core.errors import StorageError, UsageError, listed
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.runtime import files, locks
from nnunet_core.runtime.names import Ending, PlainName
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.store.probabilities import is_whole, probabilities_file

RECORD = "predictions.json"
_Item = TypeVar("_Item")
#: Folders of images that may lie beside label maps.
MAPS = ("entropy", "disagreement")
_PURPOSE = "predictions"
_REGISTERING = f".parts{locks.NAME}"


class PredictionRecord(files.Document):
    """What wrote an output folder: predictions of the same identity are kept on a rerun.

    Attributes:
        model, folds: Where the networks lie.
        identity: Of everything that a prediction depends on.
        predictor: How the networks were applied; None in an ensemble, whose members say it.
        postprocess: Whether label maps were cleaned as it was found useful on the validation cases.
        labels, label_ending, label_format: What label maps and probabilities mean, the ending of
            the label files, and the component that reads them where dataset.json names one.
        temperature: What logarithms of probabilities were divided by, or None; of an ensemble, a
            number for each model.
        tolerances: {label or region: mm within which two surfaces count as one}, of the model.
        outputs: Names of the label files that are, or will be, of this identity.
        replaced: {name of a file of somebody else: digest of its content}: it counts as theirs as
            long as it has this content. Empty when the prediction is finished.
    """

    schema_version: Literal[4] = 4
    model: str
    folds: tuple[str, ...]
    identity: str
    predictor: ComponentRecord | None
    postprocess: bool
    labels: Labels
    label_ending: Ending
    label_format: str | None = None
    temperature: float | tuple[float, ...] | None = None
    tolerances: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
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
class Beside:
    """What lies beside the label file of a case, or shall.

    Attributes:
        probabilities: `CASE.b2nd`.
        maps: Folders of images `CASE.nii.gz`, of `MAPS`.
    """

    probabilities: bool = False
    maps: tuple[str, ...] = ()

    def files(self, label: Path) -> list[Path]:
        """Return the files of a label file."""
        own = [probabilities_file(label)] if self.probabilities else []
        return [*own, *(map_file(label, name) for name in self.maps)]

    def remove_others(self, label: Path) -> None:
        """Remove what else lies beside a label file: it is of another prediction."""
        for path in set(Beside(True, MAPS).files(label)) - set(self.files(label)):
            path.unlink(missing_ok=True)


def map_file(label: Path, name: str) -> Path:
    """Return where an image of a case lies, `entropy/CASE.nii.gz` beside the label files."""
    return label.parent / name / probabilities_file(label).with_suffix(".nii.gz").name


class FileRecord(files.Document):
    """What made one label file that is no folder's: `.NAME.json` beside it.

    Attributes:
        identity: Of everything that the prediction depends on, its images included.
        content: Digest of the label file.
    """

    identity: str
    content: str

    @staticmethod
    def place(output: Path) -> Path:
        """Return where the record of a label file lies."""
        return output.with_name(f".{output.name}.json")

    @classmethod
    def note(cls, output: Path, identity: str) -> None:
        """Write down that a label file is made."""
        cls(identity=identity, content=files.file_digest(output)).write(cls.place(output))


def is_made(output: Path, identity: str, beside: Beside, report: Reporter) -> bool:
    """Return whether one label file, and what is asked for beside it, is what would be predicted.

    Raises:
        UsageError: Something else is in its place.
    """
    if not output.exists():
        return False
    there = all(path.is_file() for path in (output, *beside.files(output)))
    if there and (not beside.probabilities or is_whole(probabilities_file(output))):
        with contextlib.suppress(StorageError):
            found = FileRecord.read(FileRecord.place(output))
            if found == FileRecord(identity=identity, content=files.file_digest(output)):
                report.message(
                    f"{output} is there already, of the same image, model and options; --overwrite "
                    "predicts it again."
                )
                return True
    raise UsageError(
        f"{output} exists already, and nothing says that it is this prediction. Choose another "
        "name, or pass --overwrite."
    )


@dataclass(frozen=True)
class Claim:
    """What a prediction makes of its output folder.

    Attributes:
        folder: The output folder.
        record: Who writes it from now on.
        outputs: The label files of this prediction.
        stale: {file of somebody else that is in its place, or that the last prediction made: digest
            of its content}; each stays until a new one takes its place, or until everything is
            predicted.
        foreign: Those of them that no prediction made.
        found: The record that lies there.
    """

    folder: Path
    record: PredictionRecord
    outputs: tuple[Path, ...]
    stale: Mapping[Path, str]
    foreign: tuple[Path, ...]
    found: PredictionRecord | None

    def needs(self, output: Path, beside: Beside) -> bool:
        """Return whether a label file, or what is asked for beside it, has to be made."""
        there = all(path.is_file() for path in (output, *beside.files(output)))
        damaged = there and beside.probabilities and not is_whole(probabilities_file(output))
        return output in self.stale or not there or damaged

    def is_done(self, beside: Beside) -> bool:
        """Return whether everything is predicted, and the record says so."""
        written = self.found == self.record and not self.stale
        return written and not any(self.needs(output, beside) for output in self.outputs)

    def take(self, report: Reporter) -> None:
        """Write the record; it says which files are not of this prediction yet."""
        if self.foreign:
            report.warning(
                f"{listed([path.name for path in self.foreign])} in {self.folder} were made by no "
                "prediction; they are replaced one by one, as asked (--overwrite)."
            )
        replaced = {path.name: digest for path, digest in self.stale.items()}
        self.record.model_copy(update={"replaced": replaced}).write(self.folder / RECORD)

    def finish(self) -> None:
        """Remove what the last prediction made of other cases; from now on the record names
        everything.
        """
        for path in set(self.stale) - set(self.outputs):
            Beside().remove_others(path)
            path.unlink(missing_ok=True)
        self.record.write(self.folder / RECORD)


@dataclass(frozen=True)
class Part:
    """A part of the cases of a prediction, `2/4`: every fourth case from the second one on.

    Attributes:
        number: From 1 to `count`.
        count: How many parts there are.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read `2/4`.

        Raises:
            UsageError: It is something else.
        """
        match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"--part got '{text}'; it takes the number of a part and how many there are: 1/4, "
                "2/4, 3/4 and 4/4 together are everything."
            )
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Return the items of this part."""
        return items[self.number - 1 :: self.count]

    @property
    def lock(self) -> str:
        """The name of its lock file."""
        return f".part_{self.number}_of_{self.count}{locks.NAME}" if self.count > 1 else locks.NAME


@contextlib.contextmanager
def writing(
    folder: Path,
    record: PredictionRecord,
    outputs: Sequence[Path],
    overwrite: bool,
    part: Part,
    report: Reporter,
) -> Iterator[Claim]:
    """Write predictions into a folder while the block runs: nobody else does, but the other parts
    of the same prediction.

    Args:
        folder: Where the predictions go.
        record: Who writes; its outputs are filled in.
        outputs: The label files of all parts.
        overwrite: See `claim`.
        part: What is written of them.
        report: Hears of foreign files.

    Raises:
        StorageError: Another prediction, or the same part, writes there now.
        UsageError: See `claim`.
    """
    with contextlib.ExitStack() as stack:
        lock = locks.held(folder / part.lock, _PURPOSE, report, wait=False)
        if part.count == 1:
            stack.enter_context(lock)
            claimed = _registered(folder, record, outputs, overwrite, part, report)
        else:
            # while the lock of the folder is held, no whole prediction runs or begins
            with (
                locks.held(folder / _REGISTERING, _PURPOSE, report),
                locks.held(folder / locks.NAME, _PURPOSE, report, wait=False),
            ):
                claimed = _registered(folder, record, outputs, overwrite, part, report)
                stack.enter_context(lock)
        files.remove_leftovers(folder)
        yield claimed


def _registered(
    folder: Path,
    record: PredictionRecord,
    outputs: Sequence[Path],
    overwrite: bool,
    part: Part,
    report: Reporter,
) -> Claim:
    """Return what becomes of the folder, and write it down, unless somebody else writes there."""
    for other, who in _other_parts(folder).items():
        same = other.count == part.count and other != part
        if not same or not _is_of(folder, record):
            raise StorageError(
                f"{who} is busy with {_PURPOSE} ({folder}, part {other.number}/{other.count}). Let "
                "it finish, or stop it; only the other parts of one prediction are made at once."
            )
    claimed = claim(folder, record, outputs, overwrite)
    claimed.take(report)
    return claimed


def _other_parts(folder: Path) -> dict[Part, str]:
    """Return {part that is written now: by whom}."""
    found = {}
    for path in sorted(folder.glob(f".part_*{locks.NAME}")):
        match = re.fullmatch(r"\.part_(\d+)_of_(\d+)", path.name.removesuffix(locks.NAME))
        if match and (who := locks.holder(path)):
            found[Part(int(match[1]), int(match[2]))] = who
    return found


def _is_of(folder: Path, record: PredictionRecord) -> bool:
    path = folder / RECORD
    return path.is_file() and PredictionRecord.read(path).identity == record.identity


def finish(claimed: Claim, written: Sequence[Path], beside: Beside, report: Reporter) -> None:
    """Write down that a part of a prediction is made; finish the prediction with the last part.

    Args:
        claimed: What it made of the folder.
        written: The label files of the part, all of which are there.
        beside: What is asked for beside them.
        report: Told when there is another part to wait for.
    """
    folder, names = claimed.folder, {path.name for path in written}
    with locks.held(folder / _REGISTERING, _PURPOSE, report):
        now = PredictionRecord.read(folder / RECORD)
        # by their names: what was predicted may have the same content as what it replaced
        replaced = {name: digest for name, digest in now.replaced.items() if name not in names}
        now.model_copy(update={"replaced": replaced}).write(folder / RECORD)
        claimed = claim(folder, claimed.record, claimed.outputs, overwrite=True)
        if not any(claimed.needs(output, beside) for output in claimed.outputs):
            claimed.finish()


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
    stale = {
        file: files.file_digest(file)
        for file in sorted({*outputs, *made, *others} - own)
        if file.is_file()
    }
    foreign = [file for file in stale if file not in made | others]
    if stale and not overwrite:
        what = (
            f"files that no prediction made ({listed([path.name for path in foreign])})"
            if foreign
            else "predictions of another model or with other options "
            f"({next(iter(stale)).name}, {len(stale)} in all)"
        )
        raise UsageError(
            f"{folder} holds {what}. Choose another output folder, or pass --overwrite to replace "
            "them, one by one."
        )
    names = tuple(sorted(file.name for file in own | set(outputs)))
    record = record.model_copy(update={"outputs": names})
    return Claim(folder, record, tuple(outputs), stale, tuple(foreign), found)
