"""Check a raw dataset and describe it: every problem is collected, none stops the check (spec:
dataset, section 4).
"""

from __future__ import annotations

import collections
import functools
import hashlib
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from pydantic import BaseModel, ConfigDict

from nnunet_builtin.datasets.naming import entry_names
from nnunet_builtin.datasets.reading import list_cases
from nnunet_core.data.folders import list_files
from nnunet_core.data.images import SLICE_SPACING_2D, check_planar, spacing_outliers
from nnunet_core.data.unused import left_out, left_out_message
from nnunet_core.errors import DatasetError, counted, listed, natural_order
from nnunet_core.runtime.files import Document
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import alpha_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nnunet_core.data.dataset import CaseFiles, Dataset


class CaseFacts(BaseModel):
    """What one case is like.

    Attributes:
        name: Case name.
        shape: Voxels (z, y, x).
        spacing: mm (z, y, x).
        orientation: Letters such as `LPS`.
        minimum: Smallest intensity per channel.
        mean: Mean intensity per channel.
        maximum: Largest intensity per channel.
        voxels: {label value: number of voxels}, values that occur; empty for test cases.
        content: Digest of shape and intensities.
        notes: What is doubtful about the headers of its files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    minimum: tuple[float, ...]
    mean: tuple[float, ...]
    maximum: tuple[float, ...]
    voxels: dict[int, int]
    content: str
    notes: tuple[str, ...] = ()


class Report(Document):
    """The result of a check.

    Attributes:
        dataset: Folder name.
        errors: What has to be corrected before training.
        warnings: What should be looked at.
        cases: Training cases that could be read.
        test_cases: Cases of imagesTs that could be read.
    """

    dataset: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    cases: tuple[CaseFacts, ...]
    test_cases: tuple[CaseFacts, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the dataset can be trained on."""
        return not self.errors

    @property
    def voxels(self) -> dict[int, int]:
        """{label value: number of voxels} over all training cases, sorted by value."""
        total: collections.Counter[int] = collections.Counter()
        for case in self.cases:
            total.update(case.voxels)
        return dict(sorted(total.items()))

    @property
    def shape_range(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Smallest and largest size per axis (z, y, x), voxels."""
        return _range([case.shape for case in self.cases])

    @property
    def spacing_range(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Smallest and largest spacing per axis (z, y, x), mm."""
        return _range([case.spacing for case in self.cases])

    @property
    def intensity_range(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Smallest and largest intensity per channel."""
        return _range([values for case in self.cases for values in (case.minimum, case.maximum)])


def verify(
    dataset: Dataset, workers: Workers | None = None, report: Reporter | None = None
) -> Report:
    """Open every file of a dataset and report all problems.

    What makes it impossible to list the cases (no dataset.json, missing channels or labels, a case
    listed twice) is found by `open_dataset` already.

    Args:
        dataset: What to check.
        workers: Processes to read cases in; None reads them in this one.
        report: Where progress goes.
    """
    tests, errors = _test_cases(dataset)
    training = sorted(dataset.training, key=lambda case: natural_order(case.name))
    jobs = [*training, *tests]
    inspect = functools.partial(_inspect, dataset.slim())
    outcomes: list[CaseFacts | str] = []
    results = (workers or Workers()).each(
        inspect, jobs, dataset.memory, name=lambda case: f"case {case.name}"
    )
    with (report or Silence()).track("verify", len(jobs)) as tracker:
        for case, outcome in zip(jobs, results, strict=True):
            outcomes.append(outcome)
            tracker.advance(1, case.name)
    unused = _left_out(dataset, tests)
    known = len(dataset.training)
    facts = tuple(outcome for outcome in outcomes[:known] if isinstance(outcome, CaseFacts))
    test_facts = tuple(outcome for outcome in outcomes[known:] if isinstance(outcome, CaseFacts))
    return Report(
        dataset=dataset.name,
        errors=(
            *(o for o in outcomes if isinstance(o, str)),
            *errors,
            *unused[True],
            *_mixed([*facts, *test_facts]),
        ),
        warnings=(
            *unused[False],
            *_doubtful_alpha(dataset),
            *_doubtful_labels(dataset, facts),
            *_doubtful_images(dataset, facts, test_facts),
        ),
        cases=facts,
        test_cases=test_facts,
    )


def _inspect(dataset: Dataset, files: CaseFiles) -> CaseFacts | str:
    """Return the facts of a case, or its first problem."""
    try:
        case = dataset.load(files)
    except DatasetError as error:
        return str(error)
    if not case.images.any():
        return (
            f"Case {case.name} is 0 everywhere ({files.images[0]}). Replace its images or remove "
            "the case."
        )
    label = np.empty(0, np.int16) if case.label is None else case.label
    values, counts = np.unique(label, return_counts=True)
    channels = case.images.reshape(len(case.images), -1)
    return CaseFacts(
        name=case.name,
        shape=case.geometry.shape,
        spacing=case.geometry.spacing,
        orientation=_orientation(case.geometry.direction),
        minimum=tuple(channels.min(axis=1).tolist()),
        mean=tuple(channels.mean(axis=1, dtype=np.float64).tolist()),
        maximum=tuple(channels.max(axis=1).tolist()),
        voxels={int(value): int(count) for value, count in zip(values, counts, strict=True)},
        content=hashlib.blake2b(
            repr(case.images.shape).encode() + case.images.tobytes(), digest_size=8
        ).hexdigest(),
        notes=case.geometry.notes,
    )


def _test_cases(dataset: Dataset) -> tuple[list[CaseFiles], list[str]]:
    """Return the cases of imagesTs and what is wrong with their list."""
    folder = dataset.folder / "imagesTs"
    named = entry_names(dataset.document.get("test"), dataset.ending)
    if not named and not list_files(folder, dataset.ending):
        return [], []
    try:
        channels = len(dataset.channels)
        found = list_cases(folder, dataset.ending, channels, dataset.image_format)
    except DatasetError as error:
        return [], [f"{error} Add what is missing, or remove the test cases."]
    names = {case.name for case in found}
    problems = []
    if missing := sorted(set(named) - names):
        problems.append(
            f"dataset.json lists {counted(len(missing), 'test case')} without images in {folder}: "
            f"{listed(missing)}. Add the images or remove the entries."
        )
    if unlisted := sorted(names - set(named)) if named else []:
        problems.append(
            f"{folder} holds {counted(len(unlisted), 'case')} that 'test' of dataset.json does not "
            f"list: "
            f"{listed(unlisted)}. Remove the files or add the entries."
        )
    return found, problems


def _left_out(dataset: Dataset, tests: Sequence[CaseFiles]) -> dict[bool, list[str]]:
    """Return messages for files that no case uses; True: those of the ending of cases."""
    messages: dict[bool, list[str]] = {True: [], False: []}
    own = (dataset.ending.lower(), dataset.label_ending.lower())
    for cases in (dataset.training, tests):
        for folder, names in left_out(cases).items():
            for expected in (True, False):
                if named := [name for name in names if name.lower().endswith(own) == expected]:
                    messages[expected].append(left_out_message(folder, named, cases[0]))
    return messages


def _doubtful_alpha(dataset: Dataset) -> list[str]:
    message = alpha_message(dataset, dataset.training)
    return [message] if message else []


def _mixed(cases: Sequence[CaseFacts]) -> list[str]:
    try:
        check_planar({case.name: case.spacing[0] == SLICE_SPACING_2D for case in cases})
    except DatasetError as error:
        return [str(error)]
    return []


def _doubtful_labels(dataset: Dataset, cases: Sequence[CaseFacts]) -> Iterator[str]:
    count = len(dataset.training)
    declared = dataset.document.get("numTraining", count)
    if str(declared) != str(count):
        yield (
            f"dataset.json declares {declared} training cases, there are {count}. Correct "
            "'numTraining'."
        )
    names, present = dataset.labels.names, {value for case in cases for value in case.voxels}
    absent = [
        f"{value} ({names.get(value)})"
        for value in dataset.labels.foreground
        if value not in present
    ]
    if absent and cases:
        yield (
            f"Labels that occur in no case: {listed(absent)}. No network can learn them; correct "
            "dataset.json."
        )
    empty = [case.name for case in cases if not set(dataset.labels.foreground) & set(case.voxels)]
    if empty:
        folder = dataset.folder / "labelsTr"
        yield (
            f"{counted(len(empty), 'case has', 'cases have')} no foreground in {folder}: "
            f"{listed(empty)}. Is this meant?"
        )


def _doubtful_images(
    dataset: Dataset, cases: Sequence[CaseFacts], tests: Sequence[CaseFacts]
) -> Iterator[str]:
    everything = [*cases, *tests]
    for case in everything:
        yield from case.notes
    yield from spacing_outliers({case.name: case.spacing for case in everything})
    for index, channel in enumerate(dataset.channels):
        constant = [case.name for case in everything if case.minimum[index] == case.maximum[index]]
        if constant:
            yield (
                f"Channel {index} ({channel}) is constant in {counted(len(constant), 'case')}: "
                f"{listed(constant)}. Is this meant?"
            )
    usual = collections.Counter(case.orientation for case in cases).most_common(1)
    other = [
        f"{case.name} ({case.orientation})"
        for case in everything
        if usual and case.orientation != usual[0][0]
    ]
    if other:
        yield (
            f"{counted(len(other), 'case is', 'cases are')} oriented otherwise than the usual "
            f"{usual[0][0]}: {listed(other)}. Networks see voxels, not patients: reorient them, "
            "unless the orientation is meant to vary."
        )
    groups = collections.defaultdict(list)
    for case in everything:
        groups[case.content].append(case.name)
    for names in groups.values():
        if len(names) > 1:
            yield (
                f"These cases hold the same image: {listed(names)}. Remove all but one: copies on "
                "both sides of a split make the scores too good."
            )


@functools.lru_cache(maxsize=16)
def _orientation(direction: tuple[float, ...]) -> str:
    """Return the anatomical letters (`LPS` for the identity) of a direction matrix."""
    return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction))


def _range(rows: Iterable[Sequence[float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    table = list(zip(*rows, strict=True))
    return tuple(min(column) for column in table), tuple(max(column) for column in table)
