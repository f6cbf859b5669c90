"""Removal of components below a size, set or chosen where it helped on validation."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nnunet_builtin.postprocessing.components import components_of, without_components
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
from nnunet_core.errors import StorageError, UsageError

if TYPE_CHECKING:
    from nnunet_core.data.labels import Labels

_ROUNDING = 1e-6  # of a size in mm3


@dataclass
class MinimumSize:
    """Removes face-connected components that are smaller than a size.

    The state has `unit` and `minimum_sizes`, a list of {`labels`: values that are one object,
    `size`}; where the validation cases decided, also the mean Dice before and after
    (`dice_before`, `dice_after`) and `num_samples`.

    Args:
        size: Smallest component that stays; a number for every label, or {label: number}. None
            chooses, on the validation cases, for each label the size with the highest mean Dice; a
            label that no size improves is left alone.
        unit: Of the sizes: `mm3` or `voxels`.
        together: The foreground is one object, whatever the labels in it.
        threshold: The gain in mean Dice that a label needs.
    """

    size: float | dict[int, float] | None = None
    unit: Literal["mm3", "voxels"] = "mm3"
    together: bool = False
    threshold: float = 0.0

    def fit(self, pairs: Pairs, labels: Labels) -> dict[str, Any]:
        """Decide from (prediction, reference, geometry) of every validation case; they are read
        once, once a region where regions overlap, and not at all where the size is set.

        Raises:
            ImageError: A prediction and its reference differ in shape.
            UsageError: The settings name labels that do not exist.
        """
        whole = {"foreground": tuple(sorted(labels.foreground))}
        objects = whole if self.together else objects_of(labels)
        if self.size is not None:
            return {"unit": self.unit, "minimum_sizes": self._set(objects, labels)}
        chosen: list[dict[str, Any]] = []
        before: dict[str, float] = {}
        after: dict[str, float] = {}
        count = 0
        # cleaning one region changes those that overlap it; classes have nothing in common
        groups = (
            [[values] for values in objects.values()] if labels.regions else [[*objects.values()]]
        )
        for group in groups:
            found = self._measure(pairs, labels, group, chosen)
            for values, curve in zip(group, found, strict=True):
                count, size = curve.mean.cases, curve.best(self.threshold)
                plain, best = curve.scores(None), curve.scores(size)
                before = {**plain, **before}
                after.update(best)
                if size is not None:
                    chosen.append({"labels": list(values), "size": size})
        return {
            "unit": self.unit,
            "minimum_sizes": chosen,
            "dice_before": as_json(before),
            "dice_after": as_json(after),
            "num_samples": count,
        }

    def apply(
        self, segmentation: np.ndarray, geometry: Geometry, state: Mapping[str, Any]
    ) -> np.ndarray:
        """Return the cleaned copy of an integer (Z, Y, X) label map.

        Raises:
            StorageError: The state does not say which sizes to apply.
        """
        try:
            unit = {"mm3": math.prod(geometry.spacing), "voxels": 1.0}[state["unit"]]
            sizes = [
                ([int(value) for value in entry["labels"]], float(entry["size"]) / unit)
                for entry in state["minimum_sizes"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"The postprocessing state is {dict(state)}; it must have 'unit' (mm3 or voxels) "
                "and 'minimum_sizes', a list of {labels, size}. Fit the postprocessing again."
            ) from error
        return _cleaned(segmentation.copy(), sizes)

    def _set(self, objects: Mapping[str, Sequence[int]], labels: Labels) -> list[dict[str, Any]]:
        if not isinstance(self.size, dict):
            return [{"labels": list(values), "size": self.size} for values in objects.values()]
        if self.together:
            raise UsageError(
                "postprocessor.together makes the foreground one object, which has one size; "
                f"postprocessor.size is {self.size}. Leave out one of the two."
            )
        check_known(list(self.size), labels, "size")
        return [{"labels": [value], "size": size} for value, size in self.size.items()]

    def _measure(
        self,
        pairs: Pairs,
        labels: Labels,
        group: Sequence[Sequence[int]],
        first: Sequence[Mapping[str, Any]],
    ) -> list[_Curve]:
        """Return what every size does to each object of a group, after what was chosen first."""
        classes = objects_of(labels)
        curves = [
            _Curve({key: v for key, v in classes.items() if set(v) & set(values)})
            for values in group
        ]
        for prediction, reference, geometry in pairs():
            unit = math.prod(geometry.spacing) if self.unit == "mm3" else 1.0
            source = _cleaned(prediction, [(e["labels"], e["size"] / unit) for e in first])
            for values, curve in zip(group, curves, strict=True):
                curve.look(source, reference, labels, values, unit)
        for curve in curves:
            curve.draw()
        return curves


@dataclass
class _Case:
    """One case: its components, the smallest first.

    Attributes:
        sizes: (n,), ascending.
        both, predicted: (n + 1, K): voxels per class in the smallest 0, 1, ..., n components.
        counts: Of the whole case.
    """

    sizes: np.ndarray
    both: np.ndarray
    predicted: np.ndarray
    counts: Counts


@dataclass
class _Curve:
    """The mean Dice of classes over the sizes below which components of one object are removed.

    Attributes:
        classes: {key in a summary: label values} of the classes that the object touches.
        cases: What was looked at.
        sizes: Smallest sizes that stay, (S,), ascending; the first removes nothing.
        mean: Dice, (S, K).
    """

    classes: Mapping[str, Sequence[int]]
    cases: list[_Case] = field(default_factory=list)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(1))
    mean: MeanDice = field(default_factory=MeanDice)

    def look(
        self,
        prediction: np.ndarray,
        reference: np.ndarray,
        labels: Labels,
        values: Sequence[int],
        unit: float,
    ) -> None:
        """Take one case; `unit` is the size of a voxel."""
        counts = Counts.of(prediction, reference, labels, self.classes)
        box, components, voxels = components_of(prediction, values)
        predicted, true = prediction[box], reference[box]
        inside = components > 0
        if labels.ignore is not None:
            inside &= true != labels.ignore
        numbers, predicted, true = components[inside], predicted[inside], true[inside]
        order = np.argsort(voxels, kind="stable")

        def smallest_first(mask: np.ndarray) -> np.ndarray:
            found = np.bincount(numbers[mask], minlength=voxels.size + 1)[1:][order]
            return np.concatenate([[0], np.cumsum(found)])

        mine = [np.isin(predicted, v) for v in self.classes.values()]
        theirs = [np.isin(true, v) for v in self.classes.values()]
        both = [smallest_first(a & b) for a, b in zip(mine, theirs, strict=True)]
        self.cases.append(
            _Case(
                voxels[order] * unit,
                np.stack(both, axis=1),
                np.stack([smallest_first(mask) for mask in mine], axis=1),
                counts,
            )
        )

    def draw(self) -> None:
        """Compute the curve."""
        found = np.unique(np.concatenate([case.sizes for case in self.cases] or [np.zeros(0)]))
        # just above a size that occurs, as little as rounding needs; the largest of all stays
        above = np.minimum(found[:-1] * (1 + _ROUNDING), (found[:-1] + found[1:]) / 2)
        self.sizes = np.concatenate([[0.0], above])
        for case in self.cases:
            removed = np.searchsorted(case.sizes, self.sizes)
            self.mean.add(case.counts.with_more(-case.both[removed], -case.predicted[removed]))

    def best(self, threshold: float) -> float | None:
        """Return the size with the highest mean Dice, the smallest of equal ones; None if no size
        helps.
        """
        before = self.scores(None)
        best, size = -math.inf, None
        for row, candidate in zip(self._rows(), self.sizes, strict=True):
            mean = float(np.nanmean(row)) if not np.isnan(row).all() else math.nan
            scores = dict(zip(self.classes, row.tolist(), strict=True))
            if mean > best and helps(scores, before, threshold):
                best, size = mean, float(candidate)
        return size

    def scores(self, size: float | None) -> dict[str, float]:
        """Return {class: mean Dice} with a size of the curve; None removes nothing."""
        rows = self._rows()
        row = rows[0 if size is None else int(np.flatnonzero(self.sizes == size)[0])]
        return dict(zip(self.classes, row.tolist(), strict=True))

    def _rows(self) -> np.ndarray:
        return np.broadcast_to(self.mean.values(), (self.sizes.size, len(self.classes)))


def _cleaned(segmentation: np.ndarray, sizes: Sequence[tuple[Sequence[int], float]]) -> np.ndarray:
    """Return the map without components below sizes (labels, voxels)."""
    before = None
    while segmentation is not before:  # what is removed of one region may split another
        before = segmentation
        for values, voxels in sizes:
            segmentation = without_components(
                segmentation, values, functools.partial(np.greater, voxels)
            )
    return segmentation
