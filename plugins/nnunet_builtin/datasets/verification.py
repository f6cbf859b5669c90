"""Check a raw dataset and describe it: every problem is collected, none stops the check (spec:
dataset, section 4).
"""

from __future__ import annotations

import collections
import functools
from typing import TYPE_CHECKING

from nnunet_builtin.datasets.naming import entry_names
from nnunet_builtin.datasets.reading import list_cases
from nnunet_core.data.folders import list_files
from nnunet_core.data.images import SLICE_SPACING_2D, check_planar, spacing_outliers
from nnunet_core.data.unused import left_out, left_out_message
from nnunet_core.errors import DatasetError, counted, listed, natural_order
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import alpha_message
from nnunet_core.stages.inspect import inspect_case
from nnunet_core.store.verification import CaseFacts, Verification

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nnunet_core.data.dataset import CaseFiles, Dataset


def verify(
    dataset: Dataset, workers: Workers | None = None, report: Reporter | None = None
) -> Verification:
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
    inspect = functools.partial(inspect_case, dataset.slim())
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
    return Verification(
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
