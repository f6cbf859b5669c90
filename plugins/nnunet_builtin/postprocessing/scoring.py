"""Whether cleaning helps: the mean Dice of every class or region before and after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunet_core.data.images import Geometry
from nnunet_core.errors import UsageError
from nnunet_core.stages.evaluate import joint_counts, targets

if TYPE_CHECKING:
    from nnunet_core.data.labels import Labels

#: (prediction, reference, geometry) of every validation case, see `contracts.Postprocessor`.
Pairs = Callable[[], Iterator[tuple[np.ndarray, np.ndarray, Geometry]]]
#: {class or region as in a summary: mean Dice}, NaN where it is undefined in every case.
Scores = dict[str, float]


def objects_of(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Return {key in a summary: label values} of every class or region but the background."""
    return {key: values for key, values in targets(labels).items() if values != (0,)}


def helps(after: Mapping[str, float], before: Mapping[str, float], threshold: float = 0.0) -> bool:
    """Return whether a class gains more than a threshold and none loses; one that is absent
    everywhere (NaN) has no say.
    """
    gained = any(after[key] > before[key] + threshold for key in before)
    return gained and not any(after[key] < before[key] for key in before)


def as_json(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return the scores with None in the place of NaN."""
    return {key: None if math.isnan(value) else float(value) for key, value in scores.items()}


def check_known(values: Sequence[int], labels: Labels, setting: str) -> None:
    """Raise UsageError where a setting names a label that is no foreground label."""
    unknown = sorted(set(values) - set(labels.foreground))
    if unknown:
        raise UsageError(
            f"postprocessor.{setting} names the labels {unknown}; the foreground labels are "
            f"{sorted(labels.foreground)}."
        )


class Counts:
    """Voxels per class or region: what a Dice is made of.

    Attributes:
        both, predicted, true: float64 (K,): in both maps, in the prediction, in the reference.
    """

    def __init__(self, both: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> None:
        self.both, self.predicted, self.true = both, predicted, true

    @classmethod
    def of(
        cls,
        prediction: np.ndarray,
        reference: np.ndarray,
        labels: Labels,
        objects: Mapping[str, Sequence[int]],
    ) -> Counts:
        """Count two label maps (Z, Y, X); voxels to ignore are left out.

        Raises:
            ImageError: They differ in shape, or do not hold integers.
        """
        joint = joint_counts(prediction, reference, labels)
        values = [list(found) for found in objects.values()]
        return cls(
            np.array([joint[np.ix_(found, found)].sum() for found in values], float),
            np.array([joint[:, found].sum() for found in values], float),
            np.array([joint[found].sum() for found in values], float),
        )

    def with_more(self, both: np.ndarray, predicted: np.ndarray) -> Counts:
        """Return the counts after voxels joined the prediction, or left it where they are
        negative; (..., K).
        """
        return Counts(self.both + both, self.predicted + predicted, self.true)

    def dice(self) -> np.ndarray:
        """Return the Dice (..., K), NaN where neither map holds the class."""
        whole = self.predicted + self.true
        return np.divide(2 * self.both, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


class MeanDice:
    """The mean of Dice values (..., K) over cases; undefined values are left out."""

    def __init__(self) -> None:
        self.cases = 0
        self._sum: np.ndarray | None = None
        self._defined: np.ndarray | None = None

    def add(self, counts: Counts) -> None:
        """Take one case."""
        dice = counts.dice()
        known = ~np.isnan(dice)
        self.cases += 1
        self._sum = np.where(known, dice, 0) + (0 if self._sum is None else self._sum)
        self._defined = known + (0 if self._defined is None else self._defined)

    def values(self) -> np.ndarray:
        """Return the means (..., K)."""
        if self._sum is None or self._defined is None:
            return np.array(np.nan)
        empty = np.full(self._sum.shape, np.nan)
        return np.divide(self._sum, self._defined, out=empty, where=self._defined > 0)

    def scores(self, objects: Mapping[str, Sequence[int]]) -> Scores:
        """Return {class: mean Dice} of means (K,)."""
        values = np.broadcast_to(self.values(), len(objects))
        return {key: float(value) for key, value in zip(objects, values, strict=True)}
