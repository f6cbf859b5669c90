"""Filling of holes in labels, where it helped on validation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import ndimage

from nnunet_builtin.postprocessing.scoring import (
    Counts,
    MeanDice,
    Pairs,
    as_json,
    check_known,
    helps,
    objects_of,
)
from nnunet_core.data.images import Geometry
from nnunet_core.errors import StorageError

if TYPE_CHECKING:
    from nnunet_core.data.labels import Labels

#: Of an axis: voxels that have a neighbour before them, and those; and the other way round.
_SIDES = ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None)))


@dataclass
class FillHoles:
    """Fills background that foreground encloses, with the label that most of its faces touch.

    The state has `labels`, whose holes are filled, and `dimensions`; where the validation cases
    decided, also the mean Dice before and after (`dice_before`, `dice_after`) and `num_samples`.

    Args:
        dimensions: 3 fills what is enclosed in the volume; 2 what is enclosed in a slice, along
            the axis of the largest spacing (z, where all are equal).
        labels: Labels whose holes are filled, whether it helps or not; None lets the validation
            cases decide for each label.
        threshold: The gain in mean Dice that a label needs.
    """

    dimensions: Literal[2, 3] = 3
    labels: list[int] | None = None
    threshold: float = 0.0

    def fit(self, pairs: Pairs, labels: Labels) -> dict[str, Any]:
        """Decide from (prediction, reference, geometry) of every validation case; they are read
        once, and not at all where the labels are set.

        Raises:
            ImageError: A prediction and its reference differ in shape.
            UsageError: The settings name labels that do not exist.
        """
        if self.labels is not None:
            check_known(self.labels, labels, "labels")
            return {"labels": self.labels, "dimensions": self.dimensions}
        objects, values = objects_of(labels), sorted(labels.foreground)
        cases = []
        for prediction, reference, geometry in pairs():
            counts = Counts.of(prediction, reference, labels, objects)
            filled = self._filled(prediction, geometry, self.dimensions, values)
            changed = filled != prediction
            if labels.ignore is not None:
                changed &= reference != labels.ignore
            cases.append((counts, *_joined(filled[changed], reference[changed], values, objects)))
        before = _mean(cases, [], objects)
        chosen: list[int] = []
        best = before
        for index in range(len(values)):
            after = _mean(cases, [*chosen, index], objects)
            if helps(after, best, self.threshold):
                chosen, best = [*chosen, index], after
        return {
            "labels": [values[index] for index in chosen],
            "dimensions": self.dimensions,
            "dice_before": as_json(before),
            "dice_after": as_json(best),
            "num_samples": len(cases),
        }

    def apply(
        self, segmentation: np.ndarray, geometry: Geometry, state: Mapping[str, Any]
    ) -> np.ndarray:
        """Return the filled copy of an integer (Z, Y, X) label map.

        Raises:
            StorageError: The state does not say whose holes are filled.
        """
        labels, dimensions = state.get("labels"), state.get("dimensions")
        if not isinstance(labels, list) or dimensions not in (2, 3):
            raise StorageError(
                f"The postprocessing state is {dict(state)}; it must have 'labels', a list, and "
                "'dimensions', 2 or 3. Fit the postprocessing again."
            )
        return self._filled(segmentation, geometry, dimensions, labels)

    def _filled(
        self, segmentation: np.ndarray, geometry: Geometry, dimensions: int, labels: Sequence[int]
    ) -> np.ndarray:
        spacing = np.round(geometry.spacing, 3)  # headers round
        axes = [axis for axis in range(3) if dimensions == 3 or axis != int(np.argmax(spacing))]
        # a single slice has no inside along its own axis
        return fill_holes(segmentation, [a for a in axes if segmentation.shape[a] > 1], labels)


def fill_holes(segmentation: np.ndarray, axes: Sequence[int], labels: Sequence[int]) -> np.ndarray:
    """Return a copy of a label map (Z, Y, X) in which the holes of labels are filled.

    A hole is a part of the background, connected by faces along `axes`, that does not reach the
    border of the image along them. It belongs to the label that most of its faces touch, the lowest
    of equal ones.
    """
    filled = segmentation.copy()
    boxes = ndimage.find_objects((segmentation > 0).view(np.uint8))
    if not boxes or not axes:
        return filled
    part = filled[boxes[0]]
    holes, count = ndimage.label(part == 0, _faces(axes))
    open_ones = np.zeros(count + 1, bool)
    for axis, end in itertools.product(axes, (0, -1)):
        open_ones[np.take(holes, end, axis)] = True  # the box is tight: beyond it is background
    holes[open_ones[holes]] = 0
    touched = np.zeros((count + 1) * (int(part.max()) + 1), np.int64)
    for axis, (here, there) in itertools.product(axes, _SIDES):
        before = (slice(None),) * axis
        inside, beside = holes[(*before, here)], part[(*before, there)]
        edge = (inside > 0) & (beside > 0)
        pairs = inside[edge].astype(np.intp) * (int(part.max()) + 1) + beside[edge]
        touched += np.bincount(pairs, minlength=touched.size)
    owner = touched.reshape(count + 1, -1).argmax(axis=1)
    owner[~np.isin(owner, labels)] = 0
    enclosed = holes > 0
    part[enclosed] = owner[holes[enclosed]]
    return filled


def _faces(axes: Sequence[int]) -> np.ndarray:
    """Return the neighbours (3, 3, 3) of a voxel that share a face with it along the axes."""
    structure = np.zeros((3, 3, 3), bool)
    for axis in axes:
        at: list[Any] = [1, 1, 1]
        at[axis] = slice(None)
        structure[tuple(at)] = True
    return structure


def _joined(
    filled: np.ndarray,
    reference: np.ndarray,
    values: Sequence[int],
    objects: Mapping[str, Sequence[int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many voxels (labels, K) the holes of each label bring to each class: right ones,
    and all.
    """
    right, joined = np.zeros((2, len(values), len(objects)))
    for row, value in enumerate(values):
        for column, members in enumerate(objects.values()):
            if value in members:
                mine = filled == value
                joined[row, column] = np.count_nonzero(mine)
                right[row, column] = np.count_nonzero(mine & np.isin(reference, members))
    return right, joined


def _mean(
    cases: Sequence[tuple[Counts, np.ndarray, np.ndarray]],
    chosen: Sequence[int],
    objects: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """Return the mean Dice when the holes of some labels (indices) are filled."""
    mean = MeanDice()
    for counts, right, joined in cases:
        mean.add(counts.with_more(right[chosen].sum(0), joined[chosen].sum(0)))
    return mean.scores(objects)
