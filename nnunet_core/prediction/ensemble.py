"""Average the probabilities of several predictions: label maps of their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.data.images import ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.errors import (
    DatasetError,
    MissingFolderError,
    NnunetError,
    UsageError,
    counted,
    listed,
    natural_order,
)
from nnunet_core.prediction.averaging import Averaging, LabelFiles, stored_beside
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.formats import find_format
from nnunet_core.store.postprocessing import Decision
from nnunet_core.store.predictions import (
    RECORD,
    Beside,
    Claim,
    Part,
    PredictionRecord,
    claim,
    finish,
    writing,
)


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
    beside = Beside(save_probabilities)
    averaging = Averaging(kind, image_format, image_format, clean, beside)
    state = None if decision is None else [decision.reference, dict(decision.state)]
    identity = files.digest(["ensemble", [member.identity for member in members], state])
    record = ensemble_record([member.place for member in members], identity, kind, decision)
    return average(common_cases(members), output, record, averaging, overwrite, report or Silence())


def average(
    cases: Mapping[str, Sequence[Path]],
    output: Path,
    record: PredictionRecord,
    averaging: Averaging,
    overwrite: bool,
    report: Reporter,
    everything: Sequence[Path] = (),
    part: Part | None = None,
) -> list[Path]:
    """Average cases into a folder, as far as that is missing; return the label files.

    Args:
        cases: {case: the label files of its members}, see `common_cases`.
        output: Folder of the label files.
        record: Who writes there.
        averaging: What is made of them.
        overwrite: See `predictions.claim`.
        report: Where progress goes.
        everything: The label files that the folder will hold; empty means those of the cases.
        part: Which part of them the cases are; None means all.

    Raises:
        NnunetError: See `ensemble_folders`.
    """
    outputs = {name: below(output, f"{name}{averaging.kind.ending}") for name in cases}
    written = list(outputs.values())
    wanted = everything or written
    if not claim(output, record, wanted, overwrite).is_done(averaging.beside):
        with writing(output, record, wanted, overwrite, part or Part(), report) as claimed:
            _average_cases(cases, outputs, claimed, averaging, report)
            finish(claimed, written, averaging.beside, report)
    return written


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
    there = [path for label in found.values() if (path := stored_beside(label)) is not None]
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
        elif bare := [name for name in names if stored_beside(member.cases[name]) is None]:
            problems.append(f"{member.place} has no probabilities of {listed(bare)}")
    if problems or not names:
        raise DatasetError(
            f"An ensemble needs the probabilities of the same cases from every member: "
            f"{'; '.join(problems) or 'there is no case'}. Predict them with "
            "--save-probabilities."
        )
    return {name: [member.cases[name] for member in members] for name in names}


def ensemble_record(
    places: Sequence[str],
    identity: str,
    kind: LabelFiles,
    clean: object,
    temperatures: tuple[float, ...] = (),
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
        temperature=temperatures or None,
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


def _shown(value: Labels | str) -> str:
    return value if isinstance(value, str) else str(value.model_dump(exclude_defaults=True))
