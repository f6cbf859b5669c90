"""What is measured of one case beside its overlap: surfaces, volumes, lesions, label by label, in
the box that holds both masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from nnunet_builtin.evaluation.lesions import LesionRule, count_lesions
from nnunet_builtin.evaluation.scores import GROUPS, chosen
from nnunet_builtin.evaluation.surfaces import surface_distances
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.stages.evaluate import Metrics, targets

if TYPE_CHECKING:
    from nnunet_core.data.images import Geometry
    from nnunet_core.data.labels import Labels

#: mm within which two surfaces count as one, where nobody says it.
TOLERANCE = 1.0


@dataclass(frozen=True)
class Measuring:
    """Measures pairs of label maps; `stages.evaluate.compare_files` calls it where they are read.

    Attributes:
        labels: What the values mean; background is not measured.
        tolerances: {target: mm} of the surface Dice.
        groups: Of metrics, see `scores.GROUPS`.
        lesions: How lesions are matched.
    """

    labels: Labels
    tolerances: Mapping[str, float]
    groups: Sequence[str] = GROUPS
    lesions: LesionRule = field(default_factory=LesionRule)

    def __call__(
        self, prediction: np.ndarray, reference: np.ndarray, geometry: Geometry
    ) -> dict[str, Metrics]:
        """Return {target: its metrics} of two label maps, integers (Z, Y, X) on one grid."""
        if not set(self.groups) - {"overlap"}:
            return {}
        if self.labels.ignore is not None:  # belongs to neither, as for the overlap
            prediction = np.where(reference == self.labels.ignore, 0, prediction)
        boxes = [_boxes(array, self.labels) for array in (prediction, reference)]
        found = {}
        for target, values in foreground_targets(self.labels).items():
            box = _around([side[value] for side in boxes for value in values])
            mine, true = (np.isin(array[box], values) for array in (prediction, reference))
            found[target] = self._of_masks(mine, true, geometry, self.tolerances[target])
        return found

    def _of_masks(
        self, prediction: np.ndarray, reference: np.ndarray, geometry: Geometry, tolerance: float
    ) -> Metrics:
        sizes = int(prediction.sum()), int(reference.sum())
        if not any(sizes):
            return {metric.name: None for metric in chosen(self.groups) if metric.name != "Dice"}
        spacing: Sequence[float] = geometry.spacing
        if geometry.shape[0] == 1:  # the surface of a slice is its outline
            prediction, reference, spacing = prediction[0], reference[0], spacing[1:]
        found: Metrics = {}
        if "surface" in self.groups:
            found |= _surface_scores(prediction, reference, spacing, tolerance)
        if "volume" in self.groups:
            found |= _volume_errors(*sizes, geometry.spacing)
        if "lesions" in self.groups:
            counts = count_lesions(prediction, reference, self.lesions)
            found |= {"Lesion F1": counts.f1, "Lesions Reference": counts.true}
            found |= {"Lesions Test": counts.predicted, "Lesions Matched": counts.matched}
        return found


def foreground_targets(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Return the labels or regions that are judged: all of `targets` but the background."""
    return {key: values for key, values in targets(labels).items() if values != (0,)}


def _surface_scores(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance: float
) -> Metrics:
    if not prediction.any() or not reference.any():
        return {m.name: m.one_empty for m in chosen(["surface"]) if m.group == "surface"}
    distances = surface_distances(prediction, reference, spacing)
    return {
        "Surface Dice": distances.surface_dice(tolerance),
        "HD95": distances.hausdorff95(),
        "ASSD": distances.average(),
    }


def _volume_errors(predicted: int, true: int, spacing: Sequence[float]) -> Metrics:
    """Return the volume errors of two numbers of voxels; the thickness of a 2D image is none."""
    size = math.prod(step for step in spacing if step != SLICE_SPACING_2D)
    relative = (predicted - true) / true if true else math.inf
    return {"Volume Error": (predicted - true) * size, "Relative Volume Error": relative}


def _boxes(array: np.ndarray, labels: Labels) -> dict[int, tuple[slice, ...] | None]:
    """Return the box of each value that a label map holds, in one pass; of 0 all of it."""
    everything = tuple(slice(0, length) for length in array.shape)
    found = ndimage.find_objects(array, max_label=max(labels.values))
    return dict(enumerate((everything, *found)))


def _around(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...]:
    """Return the box that holds all of these, None being none; an empty one of no boxes."""
    known = [box for box in boxes if box is not None]
    if not known:
        return (slice(0, 0),) * 3
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*known, strict=True)
    )
