"""Which cases train and which validate each fold (spec: training, section 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from nnunet_core.errors import StorageError, UsageError, listed
from nnunet_core.runtime import locks
from nnunet_core.runtime.files import Document
from nnunet_core.runtime.reporting import Reporter, Silence

FOLDS = 5
ALL = "all"
_SEED = 12345
_TRAINING_SHARE = 0.8


class Split(BaseModel):
    """The cases of one fold, both sorted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: tuple[str, ...]
    val: tuple[str, ...]

    @field_validator("train", "val")
    @classmethod
    def _sorted(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(names))


class Splits(Document):
    """The folds of a dataset; one file serves every configuration and every variant."""

    folds: tuple[Split, ...]

    def check(self, names: Iterable[str], origin: object) -> None:
        """Check that a dataset can be trained with these folds.

        Args:
            names: Training cases of the dataset.
            origin: Where the folds come from, for the message.

        Raises:
            StorageError: There is no fold; one trains or validates nothing, names a case twice, on both sides, or one that
                the dataset does not have.
        """
        if not self.folds:
            raise StorageError(f"{origin} holds no folds; at least one is needed.")
        known = set(names)
        for fold, split in enumerate(self.folds):
            _check_fold(f"{origin}, fold {fold},", split)
        unknown = sorted(
            {name for split in self.folds for name in (*split.train, *split.val)} - known
        )
        if unknown:
            raise StorageError(
                f"{origin} names cases that the dataset does not have: {listed(unknown)}. If the dataset has changed, make "
                f"new folds: nnunet splits DATASET --folds {FOLDS} --overwrite. Folds whose cases change are trained anew."
            )

    def remarks(self, names: Iterable[str]) -> list[str]:
        """Return what is allowed but unusual: cases that no fold validates, or several; cases that no fold uses."""
        validated = Counter(name for split in self.folds for name in split.val)
        never = sorted(set(names) - set(validated))
        several = sorted(name for name, count in validated.items() if count > 1)
        texts = (
            (
                never,
                "are validated in no fold: they have no part in the scores, and a cascade cannot be trained",
            ),
            (several, "are validated in several folds: they count several times in the scores"),
            (self.unused(names), "are in no fold at all: no network is trained on them"),
        )
        return [f"{len(cases)} cases {text}: {listed(cases)}." for cases, text in texts if cases]

    def unused(self, names: Iterable[str]) -> list[str]:
        """Return the cases that no fold trains on or validates, sorted."""
        return sorted(
            set(names) - {name for split in self.folds for name in (*split.train, *split.val)}
        )


def equal_folds(names: Iterable[str], count: int = FOLDS) -> tuple[Split, ...]:
    """Return v1's folds: the sorted names are shuffled (RandomState(12345)) and cut into `count` parts.

    Raises:
        UsageError: Fewer than two folds, or fewer cases than folds.
    """
    cases = sorted(names)
    _check_count(count, len(cases), "cases")
    order = np.random.RandomState(_SEED).permutation(len(cases))
    parts = (set(part.tolist()) for part in np.array_split(order, count))
    return tuple(_split(cases, validation) for validation in parts)


def five_folds(names: Iterable[str]) -> tuple[Split, ...]:
    """Return v1's five folds.

    Raises:
        UsageError: There are fewer than five cases.
    """
    cases = sorted(names)
    if len(cases) < FOLDS:
        raise UsageError(
            f"Five folds need at least five cases, this dataset has {len(cases)}. "
            "Use --folds all to train on all cases (they are then validated on themselves)."
        )
    return equal_folds(cases)


def grouped_folds(groups: Mapping[str, str], count: int = FOLDS) -> tuple[Split, ...]:
    """Return folds in which all cases of a group (a patient) are on the same side; equal input gives equal folds.

    The groups are shuffled (RandomState(12345)); then, the largest first, each joins the fold that validates the fewest cases.

    Args:
        groups: {case: group}.
        count: Number of folds.

    Raises:
        UsageError: Fewer than two folds, or fewer groups than folds.
    """
    cases, sizes = sorted(groups), Counter(groups.values())
    _check_count(count, len(sizes), "groups")
    shuffled = np.random.RandomState(_SEED).permutation(sorted(sizes)).tolist()
    loads, fold_of = [0] * count, dict.fromkeys(shuffled, 0)
    for group in sorted(shuffled, key=lambda group: -sizes[group]):
        fold = loads.index(min(loads))
        loads[fold] += sizes[group]
        fold_of[group] = fold
    members = [
        {i for i, name in enumerate(cases) if fold_of[groups[name]] == fold}
        for fold in range(count)
    ]
    return tuple(_split(cases, validation) for validation in members)


def random_split(names: Iterable[str], fold: int) -> Split:
    """Return the split of a fold beyond the stored: 80 % of the cases, drawn with RandomState(12345 + fold), train."""
    cases = sorted(names)
    random = np.random.RandomState(_SEED + fold)
    training = random.choice(len(cases), int(_TRAINING_SHARE * len(cases)), replace=False)
    return _split(cases, set(range(len(cases))) - set(training.tolist()))


def load_splits(
    names: Sequence[str], folds: Sequence[str], path: Path, report: Reporter | None = None
) -> dict[str, Split]:
    """Return {fold: split} of the asked folds.

    Args:
        names: Training cases of the dataset.
        folds: Numbers, or `all` alone: every case trains and validates, and no file is read or written. Empty: every
            stored fold.
        path: The splits file. It is written once; whoever comes later, or at the same time, reads that file.
        report: Hears of cases that are in no fold.

    Raises:
        UsageError: Fewer than five cases.
        StorageError: The file is invalid, or names cases that the dataset does not have; see `Splits.check`.
    """
    if set(folds) == {ALL}:
        return {ALL: Split(train=tuple(names), val=tuple(names))}
    stored = _stored(names, path, report or Silence())
    if report is not None and (unused := stored.unused(names)):
        report.warning(
            f"{len(unused)} cases of the dataset are in no fold of {path}, and take no part: {listed(unused)}. "
            "'nnunet splits' shows the folds and makes new ones."
        )
    known = {str(number): split for number, split in enumerate(stored.folds)}
    return {fold: known.get(fold) or random_split(names, int(fold)) for fold in folds or known}


def _stored(names: Sequence[str], path: Path, report: Reporter) -> Splits:
    if not path.is_file():
        with locks.held(
            path.with_name(f".{path.name}{locks.NAME}"), f"the folds of {path.parent.name}", report
        ):
            if not path.is_file():
                Splits(folds=five_folds(names)).write(path)
    splits = Splits.read(path)
    splits.check(names, path)
    return splits


def _split(cases: Sequence[str], validation: set[int]) -> Split:
    return Split(
        train=tuple(name for index, name in enumerate(cases) if index not in validation),
        val=tuple(name for index, name in enumerate(cases) if index in validation),
    )


def _check_count(count: int, items: int, what: str) -> None:
    if not 2 <= count <= items:
        raise UsageError(
            f"{count} folds were asked for, of {items} {what}; allowed are 2 to {items}: every fold validates at least one."
        )


def _check_fold(origin: str, split: Split) -> None:
    for side in ("train", "val"):
        cases = getattr(split, side)
        if not cases:
            raise StorageError(f"{origin} has no cases under '{side}'; every fold needs both.")
        if double := sorted(name for name, number in Counter(cases).items() if number > 1):
            raise StorageError(
                f"{origin} names cases more than once under '{side}': {listed(double)}. Name each once."
            )
    if both := sorted(set(split.train) & set(split.val)):
        raise StorageError(
            f"{origin} trains on cases that it validates: {listed(both)}. Their scores would be too good; remove them "
            "from 'train' or from 'val'."
        )
