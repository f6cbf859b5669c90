"""Removal of all but the largest component, where it helped on validation (spec: postprocessing and
selection, 2-3).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_builtin.postprocessing.components import keep_largest
from nnunet_builtin.postprocessing.scoring import (
    Counts,
    MeanDice,
    Pairs,
    Scores,
    as_json,
    check_known,
    helps,
    objects_of,
)
from nnunet_core.data.images import Geometry
from nnunet_core.errors import StorageError

if TYPE_CHECKING:
    from nnunet_core.data.labels import Labels

_Objects = Mapping[str, Sequence[int]]


class LargestComponent:
    """Keeps the largest face-connected component of the whole foreground, and of single classes,
    where that helped.

    The state has the keys of v1's postprocessing.json: `for_which_classes` (labels, and lists of
    labels that are one object, in the order of application), the mean Dice before and after as
    `dc_per_class_*` (null when undefined), `num_samples` and `min_valid_object_sizes`. With
    regions, a region takes the place of a class. `corners`, in a state of v2, connects voxels that
    share an edge or a corner.

    Args:
        threshold: The gain in mean Dice that a class needs.
        labels: Labels, and lists of labels that are one object, to clean in this order whether it
            helps or not; None lets the validation cases decide.
    """

    def __init__(self, threshold: float = 0.0, labels: list[int | list[int]] | None = None) -> None:
        self.threshold = threshold
        self.labels = labels

    def fit(self, pairs: Pairs, labels: Labels) -> dict[str, Any]:
        """Decide what to clean from (prediction, reference, geometry) of every validation case;
        read at most twice, and not at all where the settings decide.

        First the foreground as one object: accepted if a class gains and none loses. Then, with
        several classes, each class alone on top of that: accepted if it gains (and, with
        overlapping regions, no other loses).

        Raises:
            ImageError: A prediction and its reference differ in shape.
            UsageError: The settings name labels that do not exist.
        """
        if self.labels is not None:
            check_known(
                [value for entry in self.labels for value in _values(entry)], labels, "labels"
            )
            return _state(self.labels)
        objects = objects_of(labels)
        foreground = sorted(labels.foreground)
        raw, joint, count = self._score_foreground(pairs, labels, objects)
        accepted = helps(joint, raw, self.threshold)
        chosen: list[int | list[int]] = [foreground] if accepted else []
        single = (
            self._score_singly(pairs, labels, objects, foreground if accepted else [])
            if len(objects) > 1
            else {}
        )
        before = joint if accepted else raw
        for key, after in single.items():
            gains = after[key] > before[key] + self.threshold
            if gains and helps(after, before, self.threshold):
                values = objects[key]
                chosen.append(values[0] if len(values) == 1 else list(values))
        return _state(chosen, raw, joint, {key: after[key] for key, after in single.items()}, count)

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
            voxels = None if limit is None else limit / voxel
            cleaned = keep_largest(cleaned, _values(entry), voxels, bool(state.get("corners")))
        return cleaned

    def _score_foreground(
        self, pairs: Pairs, labels: Labels, objects: _Objects
    ) -> tuple[Scores, Scores, int]:
        """Return the mean Dice as predicted and with one foreground component, and the number of
        cases.
        """
        raw, joint = MeanDice(), MeanDice()
        for prediction, reference, _ in pairs():
            counts = Counts.of(prediction, reference, labels, objects)
            cleaned = keep_largest(prediction, labels.foreground)
            raw.add(counts)
            same = cleaned is prediction
            joint.add(counts if same else Counts.of(cleaned, reference, labels, objects))
        return raw.scores(objects), joint.scores(objects), raw.cases

    def _score_singly(
        self, pairs: Pairs, labels: Labels, objects: _Objects, first: Sequence[int]
    ) -> dict[str, Scores]:
        """Return {class: mean Dice of all classes when that class is cleaned, after `first` was
        cleaned jointly}.
        """
        means = {key: MeanDice() for key in objects}
        for prediction, reference, _ in pairs():
            source = keep_largest(prediction, first)
            counts = Counts.of(source, reference, labels, objects)
            for key, values in objects.items():
                cleaned = keep_largest(source, values)
                same = cleaned is source
                means[key].add(counts if same else Counts.of(cleaned, reference, labels, objects))
        return {key: mean.scores(objects) for key, mean in means.items()}


def _state(
    chosen: list[int | list[int]],
    raw: Scores | None = None,
    joint: Scores | None = None,
    single: Scores | None = None,
    count: int = 0,
) -> dict[str, Any]:
    return {
        "for_which_classes": chosen,
        "dc_per_class_raw": as_json(raw or {}),
        "dc_per_class_pp_all": as_json(joint or {}),
        "dc_per_class_pp_per_class": as_json(single or {}),
        "num_samples": count,
        "min_valid_object_sizes": None,
    }


def _values(entry: int | list[int]) -> list[int]:
    return entry if isinstance(entry, list) else [entry]


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
