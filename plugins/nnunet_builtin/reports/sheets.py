"""What is known of a dataset: read case by case, or taken from what its trainings left."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_builtin.reports.content import CaseLine, CaseScore, Share, Sheet
from nnunet_builtin.reports.method import fingerprint_of
from nnunet_builtin.reports.trained import names_of
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.fingerprint import Fingerprint
from nnunet_core.data.folders import list_files
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.data.labels import Labels
from nnunet_core.errors import NnunetError, natural_order
from nnunet_core.registry.records import FoldRecord
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.inspect import inspect_case
from nnunet_core.store.models import ModelDocument
from nnunet_core.store.origins import shell_line
from nnunet_core.store.verification import FILE, CaseFacts, Verification

_DESCRIBED = ("name", "description", "reference", "licence", "license", "release")
_MM3 = 1000  # of a millilitre
BACKGROUND = "0"


def read_sheet(
    dataset: Dataset, preprocessed: Path, workers: Workers, report: Reporter
) -> tuple[Sheet, list[str]]:
    """Return what is known of a raw dataset, and what is wrong with cases. Every case is read,
    unless `dataset verify` has kept what it found in the same content.
    """
    verification = stored_verification(preprocessed / dataset.name, dataset.digest)
    problems: list[str] = []
    if verification is not None:
        facts, source = list(verification.cases), "Of every voxel of every training case."
    else:
        facts, problems = _inspected(dataset, workers, report)
        source = "Of every voxel of every training case that can be read."
    fingerprint = fingerprint_of([preprocessed / dataset.name], dataset.digest)
    sheet = Sheet(
        name=dataset.name,
        folder=dataset.folder,
        channels=dataset.channels,
        labels=dataset.labels,
        cases=[_line(each) for each in sorted(facts, key=lambda each: natural_order(each.name))],
        total=len(dataset.training),
        tests=_tests(dataset),
        source=source,
        foreground=_foreground(fingerprint),
        errors=None if verification is None else verification.errors,
        warnings=None if verification is None else verification.warnings,
        description={
            name: str(value) for name in _DESCRIBED if (value := dataset.document.get(name))
        },
    )
    return sheet, problems


def _inspected(
    dataset: Dataset, workers: Workers, report: Reporter
) -> tuple[list[CaseFacts], list[str]]:
    """Read every case; return the facts of those that can be used, and the problems of others."""
    look = functools.partial(inspect_case, dataset.slim())
    cases = dataset.training
    found = workers.each(look, cases, dataset.memory, name=lambda case: f"case {case.name}")
    facts, problems = [], []
    with report.track("read", len(cases)) as tracker:
        for case, outcome in zip(cases, found, strict=True):
            tracker.advance(1, case.name)
            if isinstance(outcome, CaseFacts):
                facts.append(outcome)
            else:
                problems.append(outcome)
    return facts, problems


def _tests(dataset: Dataset) -> int | None:
    """Return the number of cases in imagesTs: files of one channel."""
    folder = dataset.folder / "imagesTs"
    if not folder.is_dir():
        return None
    files = list_files(folder, dataset.ending)
    return math.ceil(len(files) / max(1, len(dataset.channels)))


def stored_verification(place: Path, digest: str) -> Verification | None:
    """Return what `dataset verify` found in this content, if it was kept."""
    if not (place / FILE).is_file():
        return None
    try:
        found = Verification.read(place / FILE)
    except NnunetError:  # of another version: it is made anew with one command
        return None
    return found if found.dataset_digest == digest else None


def sheet_of_run(
    document: ModelDocument,
    record: FoldRecord | None,
    cases: Iterable[CaseScore],
    preprocessed: list[Path],
    folder: Path | None,
) -> Sheet:
    """Return what is known of the dataset of a run without reading a case.

    Args:
        document: Of one of its models.
        record: Of one of its folds.
        cases: Of its validations.
        preprocessed: Folders `preprocessed/DATASET` where its fingerprint may be.
        folder: Of the dataset.
    """
    digest = "" if record is None else record.dataset_digest
    fingerprint = fingerprint_of(preprocessed, digest)
    kept = (stored_verification(place, digest) for place in preprocessed)
    verification = next((each for each in kept if each is not None), None)
    if verification is not None:
        lines = [_line(each) for each in verification.cases]
        source = "Of every voxel of every training case ('nnunet dataset verify')."
    else:
        lines = _lines_of(fingerprint, document.labels, {each.case: each for each in cases})
        source = (
            "Shapes after cropping to what is not 0 (fingerprint); voxels of labels are those of "
            "the validated cases."
        )
    if not lines:
        source = "Nothing of its cases is stored here."
    return Sheet(
        name=document.dataset,
        folder=folder,
        channels=document.channels,
        labels=document.labels,
        cases=lines,
        total=len(fingerprint.cases) if fingerprint else len(lines),
        tests=None,
        source=source,
        foreground=_foreground(fingerprint),
        errors=None if verification is None else verification.errors,
        warnings=None if verification is None else verification.warnings,
    )


def _label_names(labels: Labels) -> dict[str, str]:
    named = names_of(labels)
    return {BACKGROUND: labels.names.get(0, "background"), **named}


def _line(facts: CaseFacts) -> CaseLine:
    return CaseLine(
        name=facts.name,
        shape=facts.shape,
        spacing=facts.spacing,
        voxels={str(value): count for value, count in facts.voxels.items()},
        intensities=list(zip(facts.minimum, facts.mean, facts.maximum, strict=True)),
        orientation=facts.orientation,
    )


def _lines_of(
    fingerprint: Fingerprint | None, labels: Labels, scored: Mapping[str, CaseScore]
) -> list[CaseLine]:
    """Return the cases of a fingerprint, with the voxels of labels where they were validated."""
    targets = {name: target for target, name in names_of(labels).items()}
    lines = []
    for case in fingerprint.cases if fingerprint else ():
        score = scored.get(case.name)
        voxels = None
        if score is not None:
            voxels = {targets[name]: count for name, count in score.true.items()}
            if score.background is not None:
                voxels[BACKGROUND] = score.background
        lines.append(CaseLine(case.name, case.size, case.spacing, voxels))
    return sorted(lines, key=lambda line: natural_order(line.name))


def _foreground(fingerprint: Fingerprint | None) -> list[tuple[str, dict[str, float]]]:
    if fingerprint is None or not fingerprint.intensities:
        return []
    pairs = zip(fingerprint.channels, fingerprint.intensities, strict=True)
    return [(name, values.model_dump()) for name, values in pairs]


def shares(sheet: Sheet) -> list[Share]:
    """Return what each label or region takes of the cases where that is known, background
    first.
    """
    labels, named = sheet.labels, _label_names(sheet.labels)
    known = [case for case in sheet.cases if case.voxels is not None]
    counts = {target: [_count(case, target, labels) for case in known] for target in named}
    every = sum(sum((case.voxels or {}).values()) for case in known)
    background = sum(counts[BACKGROUND])
    whole = not labels.regions or bool(background)  # validations count regions, which overlap
    found = []
    for target, name in named.items():
        total, is_label = sum(counts[target]), target != BACKGROUND
        foreground = every - background
        found.append(
            Share(
                name=name,
                cases=sum(1 for count in counts[target] if count),
                known=len(known),
                voxels=total,
                share=total / every if every and whole else None,
                of_foreground=total / foreground if foreground and is_label and whole else None,
                volume=_volume(known, counts[target]) if is_label else None,
            )
        )
    return found


def _count(case: CaseLine, target: str, labels: Labels) -> float:
    voxels = case.voxels or {}
    if target in labels.region_names and target not in voxels:
        values = labels.regions[labels.region_names.index(target)]
        return sum(voxels.get(str(value), 0) for value in values)
    return voxels.get(target, 0)


def _volume(cases: Sequence[CaseLine], counts: Sequence[float]) -> float | None:
    """Return the median volume of a label in millilitres over the cases that hold it."""
    held = [
        count * math.prod(case.spacing) / _MM3
        for case, count in zip(cases, counts, strict=True)
        if count and case.spacing[0] != SLICE_SPACING_2D
    ]
    return float(np.median(held)) if held else None


def verify_command(sheet: Sheet) -> str:
    """Return the command that checks a dataset."""
    return shell_line(["nnunet", "dataset", "verify", str(sheet.folder or sheet.name)])
