"""Average the probabilities of several predictions: label maps of their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.data.dataset import DatasetContent
from nnunet_core.data.images import Geometry, ImageFormat
from nnunet_core.data.labels import Labels, label_type
from nnunet_core.errors import (
    DatasetError,
    MissingFolderError,
    NnunetError,
    UsageError,
    counted,
    listed,
    natural_order,
)
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.case import to_segmentation
from nnunet_core.stages.formats import find_format
from nnunet_core.store.arrays import StoredArray
from nnunet_core.store.npz import NpzProbabilities
from nnunet_core.store.postprocessing import Decision
from nnunet_core.store.predictions import (
    RECORD,
    Beside,
    Claim,
    Part,
    PredictionRecord,
    claim,
    writing,
)
from nnunet_core.store.probabilities import (
    open_probabilities,
    probabilities_file,
    probabilities_writer,
)

_SLAB_VALUES = 1 << 25  # of the mean in memory, float32


@dataclass(frozen=True)
class LabelFiles:
    """What is known of the label files of a folder.

    Attributes:
        labels: What their values mean.
        ending: Of the files.
        format: The component that reads them, where dataset.json names one.
    """

    labels: Labels
    ending: str
    format: str | None = None

    @classmethod
    def of(cls, content: DatasetContent) -> LabelFiles:
        """Return what a dataset says of its label files."""
        return cls(content.labels, content.label_ending or content.ending, content.label_format)


@dataclass(frozen=True)
class Member:
    """Predictions that take part in an ensemble.

    Attributes:
        place: What they are called in messages.
        kind: What their files mean.
        cases: {case: its label file, with probabilities beside it}.
        identity: Changes with what is predicted.
    """

    place: str
    kind: LabelFiles
    cases: Mapping[str, Path]
    identity: str


@dataclass(frozen=True)
class Averaging:
    """What becomes of the mean of the probabilities of a case.

    Attributes:
        kind: Of the label files that are written.
        reading, writing: Formats of the label files of the members, and of these.
        clean: Postprocessor and its state; None leaves label maps as they are.
        save_probabilities: Also write the mean.
    """

    kind: LabelFiles
    reading: ImageFormat
    writing: ImageFormat
    clean: tuple[Postprocessor, Mapping[str, Any]] | None = None
    save_probabilities: bool = False

    @property
    def beside(self) -> Beside:
        """What is written beside the label maps."""
        return Beside(self.save_probabilities)

    def write(self, sources: Sequence[Path], output: Path) -> None:
        """Average one case slab by slab, and write it.

        Args:
            sources: Label files of the members, with probabilities beside them.
            output: Label file to write.

        Raises:
            DatasetError: The members lie on different grids, or have other classes.
            StorageError: A file is damaged or missing, or the disk is full.
        """
        geometry = self._common_geometry(sources)
        members = [_open(source) for source in sources]
        shape = (self.kind.labels.outputs, *geometry.shape)
        for source, member in zip(sources, members, strict=True):
            if member.shape != shape:
                raise DatasetError(_other_shape(source, member.shape, shape))
        label = np.empty(geometry.shape, label_type(max(self.kind.labels.foreground, default=0)))
        slices = max(1, _SLAB_VALUES // (shape[0] * shape[2] * shape[3]))
        parts = [slice(start, start + slices) for start in range(0, shape[1], slices)]
        self.beside.remove_others(output)
        if self.save_probabilities:
            with probabilities_writer(probabilities_file(output), shape) as write:
                for part in parts:
                    mean = _mean(members, part)
                    write(part.start, mean)
                    label[part] = to_segmentation(mean, self.kind.labels)
        else:
            for part in parts:
                label[part] = to_segmentation(_mean(members, part), self.kind.labels)
        if self.clean is not None:
            postprocessor, state = self.clean
            label = postprocessor.apply(label, geometry, state)
        self.writing.write(output, label, geometry)

    def _common_geometry(self, sources: Sequence[Path]) -> Geometry:
        first, *others = (self.reading.read(source).geometry for source in sources)
        for source, geometry in zip(sources[1:], others, strict=True):
            if details := first.contrast(geometry, str(sources[0].parent), str(source.parent)):
                raise DatasetError(
                    f"{source} lies on another grid than {sources[0]}: {details}. Predict the same "
                    "images with every model."
                )
        return first


def ensemble_folders(
    folders: Sequence[Path],
    output: Path,
    registry: Registry,
    declared: LabelFiles | None = None,
    decision: Decision | None = None,
    save_probabilities: bool = False,
    overwrite: bool = False,
    report: Reporter | None = None,
) -> list[Path]:
    """Average folders of predictions with probabilities; return the label files.

    Args:
        folders: Of `nnunet predict --save-probabilities` or `nnunet ensemble`; with `declared`,
            also of v1 and v2, with `CASE.npz`.
        output: Another folder.
        registry: Provides image formats and the postprocessor.
        declared: What label files mean where a folder does not say it.
        decision: How the label maps are cleaned; None leaves them as they are.
        save_probabilities: Also write the mean.
        overwrite: See `predictions.claim`.
        report: Where progress goes.

    Raises:
        UsageError: Fewer than two folders, one of them twice or the output, or the output holds
            something else.
        DatasetError: The folders do not hold the same cases, labels, or probabilities.
        NnunetError: Cases failed, after the others are written.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < max(2, len(places)) or output.resolve() in places:
        raise UsageError(
            "An ensemble takes two or more different folders, and writes into another one; got "
            f"{', '.join(map(str, folders)) or 'none'}, and {output} to write."
        )
    members = [read_member(folder, declared) for folder in folders]
    kind = members[0].kind
    clean = None if decision is None else opened(decision, registry)
    image_format = format_of(kind, registry)
    averaging = Averaging(kind, image_format, image_format, clean, save_probabilities)
    state = None if decision is None else [decision.reference, dict(decision.state)]
    identity = files.digest(["ensemble", [member.identity for member in members], state])
    record = ensemble_record([member.place for member in members], identity, kind, decision)
    return average(members, output, record, averaging, overwrite, report or Silence())


def average(
    members: Sequence[Member],
    output: Path,
    record: PredictionRecord,
    averaging: Averaging,
    overwrite: bool,
    report: Reporter,
) -> list[Path]:
    """Average the cases of members into a folder, as far as that is missing; return the label
    files.

    Raises:
        DatasetError: The members do not fit together; nothing is written.
        NnunetError: See `ensemble_folders`.
    """
    cases = common_cases(members)
    outputs = {name: below(output, f"{name}{averaging.kind.ending}") for name in cases}
    wanted = list(outputs.values())
    if not claim(output, record, wanted, overwrite).is_done(averaging.beside):
        with writing(output, record, wanted, overwrite, Part(), report) as claimed:
            _average_cases(cases, outputs, claimed, averaging, report)
    return wanted


def _average_cases(
    cases: Mapping[str, Sequence[Path]],
    outputs: Mapping[str, Path],
    claimed: Claim,
    averaging: Averaging,
    report: Reporter,
) -> None:
    todo = [n for n in cases if claimed.needs(outputs[n], averaging.beside)]
    failures = []
    with report.track("ensemble", len(cases), len(cases) - len(todo)) as tracker:
        for name in todo:
            try:
                averaging.write(cases[name], outputs[name])
            except NnunetError as error:
                failures.append(f"{name}: {error}")
            tracker.advance(1, name)
    if failures:
        raise NnunetError(
            f"{len(failures)} of {counted(len(cases), 'case')} failed:\n" + "\n".join(failures)
        )
    claimed.finish()


def read_member(folder: Path, declared: LabelFiles | None = None) -> Member:
    """Read what a folder of predictions holds.

    Raises:
        MissingFolderError: There is no such folder.
        UsageError: It does not say what its labels mean, and nothing else does.
    """
    if not folder.is_dir():
        raise MissingFolderError(folder, "It should hold predictions with probabilities.")
    if (folder / RECORD).is_file():
        record = PredictionRecord.read(folder / RECORD)
        kind = LabelFiles(record.labels, record.label_ending, record.label_format)
        made = {path.name.removesuffix(kind.ending): path for path in record.own(folder)}
        return Member(str(folder), kind, made, record.identity)
    if declared is None:
        raise UsageError(
            f"{folder} has no {RECORD}, so that nothing says what its labels mean. Give the "
            "dataset (--dataset), or a folder of 'nnunet predict --save-probabilities'."
        )
    found = {
        path.name.removesuffix(declared.ending): path
        for path in sorted(folder.iterdir())
        if path.name.endswith(declared.ending) and not path.name.startswith(".")
    }
    there = [path for label in found.values() if (path := _stored(label)) is not None]
    identity = files.digest([files.file_digest(path) for path in there])
    return Member(str(folder), declared, found, identity)


def common_cases(members: Sequence[Member]) -> dict[str, list[Path]]:
    """Return {case: the label files of the members}, in natural order.

    Raises:
        DatasetError: Labels, endings or cases differ, or probabilities are missing; all that is
            wrong is told.
    """
    first = members[0]
    for other in members[1:]:
        for what in ("labels", "ending"):
            mine, theirs = getattr(first.kind, what), getattr(other.kind, what)
            if mine != theirs:
                raise DatasetError(
                    f"{first.place} and {other.place} cannot be averaged, since their {what} "
                    f"differ: {_shown(mine)} and {_shown(theirs)}."
                )
    names = sorted({name for member in members for name in member.cases}, key=natural_order)
    problems = []
    for member in members:
        if missing := [n for n in names if n not in member.cases or not member.cases[n].is_file()]:
            problems.append(f"{member.place} lacks {listed(missing)}")
        elif bare := [name for name in names if _stored(member.cases[name]) is None]:
            problems.append(f"{member.place} has no probabilities of {listed(bare)}")
    if problems or not names:
        raise DatasetError(
            f"An ensemble needs the probabilities of the same cases from every member: "
            f"{'; '.join(problems) or 'there is no case'}. Predict them with "
            "--save-probabilities."
        )
    return {name: [member.cases[name] for member in members] for name in names}


def ensemble_record(
    places: Sequence[str], identity: str, kind: LabelFiles, clean: object
) -> PredictionRecord:
    """Return the record of an output folder of an ensemble."""
    return PredictionRecord(
        model=" + ".join(places),
        folds=(),
        identity=identity,
        predictor=None,
        postprocess=clean is not None,
        labels=kind.labels,
        label_ending=kind.ending,
        label_format=kind.format,
    )


def opened(
    decision: Decision, registry: Registry, trusted: bool = False
) -> tuple[Postprocessor, Mapping[str, Any]]:
    """Build the postprocessor of a decision; return it with its state.

    Args:
        decision: Of a file, from anybody.
        registry: Of the postprocessors.
        trusted: Whether it may be code that no plugin registers.

    Raises:
        UnknownComponentError: No installed plugin registers it.
    """
    if trusted and ":" in decision.reference:
        found = registry.resolve("postprocessor", decision.reference)
    else:
        found = registry.registered(
            "postprocessor",
            decision.reference,
            "the postprocessor of the file",
            "Install the plugin that it was fitted with.",
        )
    return built(found.with_settings(decision.settings)), decision.state


def format_of(kind: LabelFiles, registry: Registry) -> ImageFormat:
    """Return what reads and writes label files."""
    return find_format(kind.ending, registry, kind.format, "the predictions", "label_format")


def _stored(label: Path) -> Path | None:
    """Return the file of probabilities beside a label file, of ours or of v1 and v2, if there is
    one.
    """
    path = probabilities_file(label)
    found = (path, path.with_name(f"{path.name.removesuffix(path.suffix)}.npz"))
    return next((each for each in found if each.is_file()), None)


def _open(label: Path) -> StoredArray | NpzProbabilities:
    path = _stored(label) or probabilities_file(label)
    return NpzProbabilities(path) if path.suffix == ".npz" else open_probabilities(path)


def _mean(members: Sequence[StoredArray | NpzProbabilities], part: slice) -> np.ndarray:
    """Return the mean of slices, float32 (K, slices, Y, X)."""
    total = members[0][:, part].astype(np.float32)
    for member in members[1:]:
        total += member[:, part]
    total /= len(members)
    return total


def _other_shape(source: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    hint = ""
    if found[0] == wanted[0]:
        hint = " nnU-Net v1 cuts them to the cropped image; its nnUNet_ensemble joins those."
    return (
        f"The probabilities of {source} have shape {found}; the labels and the image ask for "
        f"{wanted} (classes or regions, z, y, x).{hint} Predict the case again."
    )


def _shown(value: Labels | str) -> str:
    return value if isinstance(value, str) else str(value.model_dump(exclude_defaults=True))
