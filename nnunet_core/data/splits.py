"""Which cases train and which validate each fold (spec: training, section 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from nnunet_core.errors import StorageError, UsageError, counted, listed
from nnunet_core.runtime import locks
from nnunet_core.runtime.files import Document
from nnunet_core.runtime.reporting import Reporter, Silence

FOLDS = 5
ALL = "all"
SEED = 12345
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
            StorageError: There is no fold; one trains or validates nothing, names a case twice, on
                both sides, or one that the dataset does not have.
        """
        if not self.folds:
            raise StorageError(f"{origin} holds no folds; at least one is needed.")
        for fold, split in enumerate(self.folds):
            _check_fold(f"{origin}, fold {fold},", split)
        if unknown := sorted(self._used() - set(names)):
            raise StorageError(
                f"{origin} names cases that the dataset does not have: {listed(unknown)}. If the "
                f"dataset has changed, make new folds: nnunet splits DATASET --folds {FOLDS} "
                "--overwrite. Folds whose cases change are trained anew."
            )

    def unused(self, names: Iterable[str]) -> list[str]:
        """Return the cases that no fold trains on or validates, sorted."""
        return sorted(set(names) - self._used())

    def _used(self) -> set[str]:
        return {name for split in self.folds for name in (*split.train, *split.val)}


def fold_names(given: str | Iterable[str | int]) -> tuple[str, ...]:
    """Return names of folds as their folders have them, each once: `01` is 1, `0,1` are two."""
    words = given.split(",") if isinstance(given, str) else map(str, given)
    names = (word.strip() for word in words)
    return tuple(dict.fromkeys(str(int(n)) if n.isdecimal() else n for n in names if n))


def equal_folds(names: Iterable[str], count: int = FOLDS) -> tuple[Split, ...]:
    """Return v1's folds: the sorted names are shuffled (RandomState(12345)) and cut into `count`
    parts.
    """
    cases = sorted(names)
    order = np.random.RandomState(SEED).permutation(len(cases))
    parts = np.array_split(order, count)
    return tuple(split_of(cases, (cases[index] for index in part)) for part in parts)


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


def split_of(names: Iterable[str], validation: Iterable[str]) -> Split:
    """Return the fold that validates some cases and trains on all others."""
    val = set(validation)
    return Split(train=tuple(name for name in names if name not in val), val=tuple(val))


def random_split(names: Iterable[str], fold: int) -> Split:
    """Return the split of a fold beyond the stored: 80 % of the cases, drawn with RandomState(12345
    + fold), train.
    """
    cases = sorted(names)
    random = np.random.RandomState(SEED + fold)
    drawn = random.choice(len(cases), int(_TRAINING_SHARE * len(cases)), replace=False)
    training = {cases[index] for index in drawn}
    return split_of(cases, (name for name in cases if name not in training))


def load_splits(
    names: Sequence[str], folds: Sequence[str], path: Path, report: Reporter | None = None
) -> dict[str, Split]:
    """Return {fold: split} of the asked folds.

    Args:
        names: Training cases of the dataset.
        folds: Numbers, or `all` alone: every case trains and validates, and no file is read or
            written. Empty: every stored fold.
        path: The splits file. It is written once; whoever comes later, or at the same time, reads
            that file.
        report: Hears of cases that are in no fold.

    Raises:
        UsageError: Fewer than five cases.
        StorageError: The file is invalid, or names cases that the dataset does not have; see
            `Splits.check`.
    """
    if set(folds) == {ALL}:
        return {ALL: Split(train=tuple(names), val=tuple(names))}
    stored = _stored(names, path, report or Silence())
    if report is not None and (unused := stored.unused(names)):
        report.warning(
            f"{counted(len(unused), 'case of the dataset is', 'cases of the dataset are')} in no "
            f"fold of {path}: "
            f"{listed(unused)}. 'nnunet splits' shows the folds and makes new ones."
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


def _check_fold(origin: str, split: Split) -> None:
    for side in ("train", "val"):
        cases = getattr(split, side)
        if not cases:
            raise StorageError(f"{origin} has no cases under '{side}'; every fold needs both.")
        if double := sorted(name for name, number in Counter(cases).items() if number > 1):
            raise StorageError(
                f"{origin} names cases more than once under '{side}': {listed(double)}. Name each "
                "once."
            )
    if both := sorted(set(split.train) & set(split.val)):
        raise StorageError(
            f"{origin} trains on cases that it validates: {listed(both)}. Their scores would be "
            "too good; remove them from 'train' or from 'val'."
        )
