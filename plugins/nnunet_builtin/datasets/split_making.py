"""Folds other than v1's five: any number of them, with the cases of a patient together; and what is
unusual about folds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from nnunet_core.data.splits import FOLDS, SEED, Split, Splits, equal_folds, split_of
from nnunet_core.errors import UsageError, counted, listed


def shuffled_folds(names: Iterable[str], count: int) -> tuple[Split, ...]:
    """Return v1's folds, another number of them.

    Raises:
        UsageError: Fewer than two folds, or fewer cases than folds.
    """
    cases = sorted(names)
    _check_count(count, len(cases), "cases")
    return equal_folds(cases, count)


def grouped_folds(groups: Mapping[str, str], count: int = FOLDS) -> tuple[Split, ...]:
    """Return folds in which all cases of a group (a patient) are on the same side; equal input
    gives equal folds.

    The groups are shuffled (RandomState(12345)); then, the largest first, each joins the fold that
    validates the fewest cases.

    Args:
        groups: {case: group}.
        count: Number of folds.

    Raises:
        UsageError: Fewer than two folds, or fewer groups than folds.
    """
    sizes = Counter(groups.values())
    _check_count(count, len(sizes), "groups")
    shuffled = np.random.RandomState(SEED).permutation(sorted(sizes)).tolist()
    members: list[set[str]] = [set() for _ in range(count)]
    loads = [0] * count
    for group in sorted(shuffled, key=lambda group: -sizes[group]):
        fold = loads.index(min(loads))
        loads[fold] += sizes[group]
        members[fold].add(group)
    return tuple(
        split_of(sorted(groups), (case for case, group in groups.items() if group in fold))
        for fold in members
    )


def remarks(splits: Splits, names: Iterable[str]) -> list[str]:
    """Return what is allowed but unusual: cases that no fold validates, or several; cases that no
    fold uses.
    """
    validated = Counter(name for split in splits.folds for name in split.val)
    never = sorted(set(names) - set(validated))
    several = sorted(name for name, count in validated.items() if count > 1)
    texts = (
        (
            never,
            "validated in no fold: without a part in the scores, and a cascade cannot be trained",
        ),
        (several, "validated in several folds: counted several times in the scores"),
        (splits.unused(names), "in no fold at all: no network is trained with them"),
    )
    return [
        f"{counted(len(cases), 'case is', 'cases are')} {text}: {listed(cases)}."
        for cases, text in texts
        if cases
    ]


def _check_count(count: int, items: int, what: str) -> None:
    if not 2 <= count <= items:
        raise UsageError(
            f"{count} folds were asked for, of {items} {what}; allowed are 2 to {items}: every "
            "fold validates at least one."
        )
