"""Removal of all but the largest component, where it helped on validation (spec: postprocessing and
selection, 2-3).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from nnunet_core.data.images import Geometry
from nnunet_core.errors import StorageError
from nnunet_core.stages.evaluate import dice, joint_counts, targets

if TYPE_CHECKING:
    from nnunet_core.data.labels import Labels

Pairs = Callable[[], Iterator[tuple[np.ndarray, np.ndarray, Geometry]]]
_Scores = dict[str, float]


class LargestComponent:
    """Keeps the largest face-connected component of the whole foreground, and of single classes,
    where that helped.

    The state has the keys of v1's postprocessing.json: `for_which_classes` (labels, and lists of
    labels that are one object, in the order of application), the mean Dice before and after as
    `dc_per_class_*` (null when undefined), `num_samples` and `min_valid_object_sizes`. With
    regions, a region takes the place of a class.

    Args:
        threshold: The gain in mean Dice that a class needs.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold

    def fit(self, pairs: Pairs, labels: Labels) -> dict[str, Any]:
        """Decide what to clean from (prediction, reference, geometry) of every validation case;
        read at most twice.

        First the foreground as one object: accepted if a class gains and none loses. Then, with
        several classes, each class alone on top of that: accepted if it gains (and, with
        overlapping regions, no other loses).

        Raises:
            ImageError: A prediction and its reference differ in shape.
        """
        objects = {key: values for key, values in targets(labels).items() if values != (0,)}
        foreground = sorted(labels.foreground)
        raw, joint, count = self._score_foreground(pairs, labels, objects)
        accepted = self._helps(joint, raw)
        chosen: list[int | list[int]] = [foreground] if accepted else []
        single = (
            self._score_singly(pairs, labels, objects, foreground if accepted else [])
            if len(objects) > 1
            else {}
        )
        before = joint if accepted else raw
        for key, after in single.items():
            if after[key] > before[key] + self.threshold and self._helps(after, before):
                values = objects[key]
                chosen.append(values[0] if len(values) == 1 else list(values))
        return {
            "for_which_classes": chosen,
            "dc_per_class_raw": _as_json(raw),
            "dc_per_class_pp_all": _as_json(joint),
            "dc_per_class_pp_per_class": _as_json(
                {key: after[key] for key, after in single.items()}
            ),
            "num_samples": count,
            "min_valid_object_sizes": None,
        }

    def apply(
        self, segmentation: np.ndarray, geometry: Geometry, state: Mapping[str, Any]
    ) -> np.ndarray:
        """Return the cleaned copy of an integer (Z, Y, X) label map; states of v1 are understood.

        Raises:
            StorageError: The state does not say which classes to clean.
        """
        entries = state.get("for_which_classes")
        if not isinstance(entries, list):
            raise StorageError(
                f"The postprocessing state has for_which_classes = {entries!r}; it must be a list "
                "of labels and lists of labels. Fit the postprocessing again."
            )
        limits = _minimum_sizes(state.get("min_valid_object_sizes"), entries)
        voxel = math.prod(geometry.spacing)
        cleaned = segmentation.copy()
        for entry, limit in zip(entries, limits, strict=True):
            values = entry if isinstance(entry, list) else [entry]
            cleaned = keep_largest(cleaned, values, None if limit is None else limit / voxel)
        return cleaned

    def _score_foreground(
        self, pairs: Pairs, labels: Labels, objects: Mapping[str, Sequence[int]]
    ) -> tuple[_Scores, _Scores, int]:
        """Return the mean Dice as predicted and with one foreground component, and the number of
        cases.
        """
        raw, joint = _Mean(objects), _Mean(objects)
        for prediction, reference, _ in pairs():
            counts = joint_counts(prediction, reference, labels)
            cleaned = keep_largest(prediction, labels.foreground)
            raw.add(counts)
            joint.add(counts if cleaned is prediction else joint_counts(cleaned, reference, labels))
        return raw.scores(), joint.scores(), raw.cases

    def _score_singly(
        self,
        pairs: Pairs,
        labels: Labels,
        objects: Mapping[str, Sequence[int]],
        first: Sequence[int],
    ) -> dict[str, _Scores]:
        """Return {class: mean Dice of all classes when that class is cleaned, after `first` was
        cleaned jointly}.
        """
        means = {key: _Mean(objects) for key in objects}
        for prediction, reference, _ in pairs():
            source = keep_largest(prediction, first)
            counts = joint_counts(source, reference, labels)
            for key, values in objects.items():
                cleaned = keep_largest(source, values)
                means[key].add(
                    counts if cleaned is source else joint_counts(cleaned, reference, labels)
                )
        return {key: mean.scores() for key, mean in means.items()}

    def _helps(self, after: _Scores, before: _Scores) -> bool:
        """Return whether a class gained and none lost; a class that is absent everywhere (NaN) has
        no say.
        """
        gained = any(after[key] > before[key] + self.threshold for key in before)
        return gained and not any(after[key] < before[key] for key in before)


class NoPostprocessing:
    """Leaves predictions as they are."""

    def fit(self, pairs: Pairs, labels: Labels) -> dict[str, Any]:  # noqa: ARG002
        """Return a state that cleans nothing; no case is read."""
        return {"for_which_classes": []}

    def apply(
        self,
        segmentation: np.ndarray,
        geometry: Geometry,  # noqa: ARG002
        state: Mapping[str, Any],  # noqa: ARG002
    ) -> np.ndarray:
        """Return a copy of the (Z, Y, X) label map."""
        return segmentation.copy()


def keep_largest(
    segmentation: np.ndarray, values: Sequence[int], minimum_voxels: float | None = None
) -> np.ndarray:
    """Set to 0 the voxels of `values` outside their largest face-connected component.

    Spec: postprocessing and selection, section 2.

    Components as large as the largest stay. With `minimum_voxels`, only components smaller than
    that are removed.

    Returns:
        A cleaned copy of the integer (Z, Y, X) map, or the map itself when there is nothing to
        remove.
    """
    mask = np.isin(segmentation, values)
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return segmentation
    components, count = ndimage.label(mask[boxes[0]])
    if count < 2:
        return segmentation
    sizes = np.bincount(components.ravel())
    removed = sizes < sizes[1:].max()
    if minimum_voxels is not None:
        removed &= sizes < minimum_voxels
    removed[0] = False
    if not removed.any():
        return segmentation
    cleaned = segmentation.copy()
    cleaned[boxes[0]][removed[components]] = 0
    return cleaned


class _Mean:
    """The mean Dice per class over cases, from joint voxel counts; undefined values are left
    out.
    """

    def __init__(self, objects: Mapping[str, Sequence[int]]) -> None:
        self.cases = 0
        self._objects = objects
        self._found: dict[str, list[float]] = {key: [] for key in objects}

    def add(self, counts: np.ndarray) -> None:
        self.cases += 1
        for key, values in self._objects.items():
            value = dice(counts, values)
            if value is not None:
                self._found[key].append(value)

    def scores(self) -> _Scores:
        return {
            key: float(np.mean(found)) if found else math.nan for key, found in self._found.items()
        }


def _as_json(scores: _Scores) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in scores.items()}


def _minimum_sizes(stored: Any, entries: Sequence[Any]) -> list[float | None]:
    """Return the size in mm³ below which parts of each entry are removed, or None to remove all but
    the largest.

    `stored` is null, or {label or tuple of labels: mm³}, also as the text of a Python literal as v1
    writes it.
    """
    try:
        sizes = ast.literal_eval(stored) if isinstance(stored, str) else stored
        if sizes is None:
            return [None] * len(entries)
        return [
            float(sizes[tuple(entry) if isinstance(entry, list) else entry]) for entry in entries
        ]
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise StorageError(
            f"min_valid_object_sizes is {stored!r}; it must be null or map every entry of "
            f"for_which_classes ({entries}) to mm³. Fit the postprocessing again."
        ) from error
