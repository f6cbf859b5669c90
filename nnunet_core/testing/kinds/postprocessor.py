"""Checks of postprocessors: what they decide, and what they do to label maps."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.testing.check import Subject, check, require, skip

_CLASSES = Labels.from_names({"background": 0, "organ": 1, "lesion": 2})
_IGNORING = Labels.from_names({"background": 0, "organ": 1, "lesion": 2, "ignore": 3})
_REGIONS = Labels.from_names({"background": 0, "whole": [1, 2], "core": [2]}, order=[1, 2])
_ALL = {"classes": _CLASSES, "classes with an ignore label": _IGNORING, "regions": _REGIONS}
_SHAPE, _SPACING = (8, 16, 14), (2.0, 1.0, 1.0)

_Pair = tuple[np.ndarray, np.ndarray, Geometry]


@check("postprocessor")
def postprocessor_state_is_json(subject: Subject) -> None:
    """`fit` returns a dictionary of JSON values, and works the same after it was written and
    read.
    """
    for name, labels in _ALL.items():
        component = subject.build()
        state = component.fit(_Validation(), labels)
        require(
            isinstance(state, dict),
            f"The state for {name} is {state!r}; it must be a dictionary of JSON values.",
        )
        try:
            read = json.loads(json.dumps(state, allow_nan=False))
        except (TypeError, ValueError) as error:
            require(False, f"The state for {name} is no JSON ({error}): {state!r}.")
        for prediction, _, geometry in _cases():
            direct, stored = (
                subject.build().apply(prediction.copy(), geometry, each) for each in (state, read)
            )
            require(
                np.array_equal(direct, stored),
                f"The state for {name} does other things after it was written as JSON and read: "
                f"{_difference(direct, stored)}. Keys become text, tuples lists.",
            )


@check("postprocessor")
def postprocessor_decides_alike(subject: Subject) -> None:
    """Equal cases lead to equal states, and equal states to equal label maps."""
    for name, labels in _ALL.items():
        component = subject.build()
        first = component.fit(_Validation(), labels)
        for again in (
            component.fit(_Validation(), labels),
            subject.build().fit(_Validation(), labels),
        ):
            require(
                first == again,
                f"`fit` returns {again!r} the second time, for the same cases ({name}), and "
                f"{first!r} the first time; it must decide alike.",
            )
        for prediction, _, geometry in _cases():
            one, other = (component.apply(prediction.copy(), geometry, first) for _ in range(2))
            require(
                np.array_equal(one, other),
                f"`apply` does other things the second time: {_difference(one, other)}.",
            )


@check("postprocessor")
def postprocessor_helps_where_it_was_fitted(subject: Subject) -> None:
    """What it chose on validation cases does not lower their mean Dice."""
    for name, labels in _ALL.items():
        component, validation = subject.build(), _Validation()
        state = component.fit(validation, labels)
        if not validation.calls:
            skip("Its settings decide; it looks at no case.")
        targets = labels.regions or tuple((value,) for value in labels.foreground)
        before, after = [], []
        for prediction, reference, geometry in _cases():
            cleaned = component.apply(prediction.copy(), geometry, state)
            for values in targets:
                before.append(_dice(prediction, reference, values))
                after.append(_dice(cleaned, reference, values))
        require(
            np.nanmean(after) >= np.nanmean(before) - 1e-9,
            f"The mean Dice of the validation cases ({name}) falls from {np.nanmean(before):.4f} "
            f"to {np.nanmean(after):.4f} by what `fit` chose on them.",
        )


@check("postprocessor")
def postprocessor_leaves_its_input(subject: Subject) -> None:
    """Neither `fit` nor `apply` changes an array or the state that it gets."""
    component, validation = subject.build(), _Validation(copied=False)
    state = component.fit(validation, _CLASSES)
    validation.require_unchanged("fit")
    kept = copy.deepcopy(state)
    for prediction, _, geometry in validation.cases:
        component.apply(prediction, geometry, state)
    validation.require_unchanged("apply")
    require(kept == state, f"`apply` changes the state from {kept!r} to {state!r}.")


@check("postprocessor")
def postprocessor_keeps_the_form(subject: Subject) -> None:
    """A label map keeps its shape and its type of integers; also one of a single slice."""
    for component, state, prediction, geometry in _fitted(subject):
        for dtype in (np.uint8, np.uint16, np.int16):
            cleaned = component.apply(prediction.astype(dtype), geometry, state)
            require(
                isinstance(cleaned, np.ndarray)
                and cleaned.shape == prediction.shape
                and cleaned.dtype == dtype,
                f"Of a {np.dtype(dtype)} label map {prediction.shape} `apply` makes "
                f"{_form(cleaned)}; shape and type must stay.",
            )


@check("postprocessor")
def postprocessor_invents_no_labels(subject: Subject) -> None:
    """A cleaned label map holds no value that it did not hold before, but 0."""
    for component, state, prediction, geometry in _fitted(subject):
        for only in ((1, 2), (1,), (2,)):
            given = np.where(np.isin(prediction, only), prediction, 0).astype(np.uint8)
            cleaned = component.apply(given.copy(), geometry, state)
            new = set(np.unique(cleaned).tolist()) - {0} - set(np.unique(given).tolist())
            require(
                not new,
                f"The values {sorted(new)} are in the cleaned label map, but not in the one before "
                f"({sorted(np.unique(given).tolist())}).",
            )


@check("postprocessor")
def postprocessor_is_idempotent(subject: Subject) -> None:
    """What is clean stays as it is: cleaning twice is cleaning once."""
    for component, state, prediction, geometry in _fitted(subject):
        once = component.apply(prediction.copy(), geometry, state)
        twice = component.apply(once.copy(), geometry, state)
        require(
            np.array_equal(once, twice),
            f"Cleaning a second time changes the label map again: {_difference(once, twice)}. "
            "Repeat it until nothing changes.",
        )


@check("postprocessor")
def postprocessor_takes_empty_maps(subject: Subject) -> None:
    """A label map of background stays one, and validation cases may be empty, too."""
    empty = np.zeros(_SHAPE, np.uint8)
    geometry = Geometry(_SHAPE, _SPACING)
    nothing = _Validation([(empty, empty, geometry)])
    for name, labels in _ALL.items():
        component = subject.build()
        for state in (component.fit(_Validation(), labels), component.fit(nothing, labels)):
            cleaned = component.apply(empty.copy(), geometry, state)
            require(
                isinstance(cleaned, np.ndarray) and not cleaned.any(),
                f"Of a label map of background `apply` makes one with "
                f"{np.count_nonzero(cleaned)} foreground voxels ({name}); it must stay empty.",
            )


class _Validation:
    """`pairs` of a fit: yields the cases, counts how often it was asked, and tells if they were
    changed.
    """

    def __init__(self, cases: list[_Pair] | None = None, copied: bool = True) -> None:
        self.cases = _cases() if cases is None else cases
        self.calls = 0
        self._before = [(a.copy(), b.copy()) for a, b, _ in self.cases]
        self._copied = copied

    def __call__(self) -> Iterator[_Pair]:
        self.calls += 1
        for prediction, reference, geometry in self.cases:
            if self._copied:
                yield prediction.copy(), reference.copy(), geometry
            else:
                yield prediction, reference, geometry

    def require_unchanged(self, method: str) -> None:
        for old, new in zip(self._before, self.cases, strict=True):
            for what, before, after in zip(("prediction", "reference"), old, new[:2], strict=True):
                require(
                    np.array_equal(before, after),
                    f"`{method}` changes the {what} in place: {_difference(before, after)}. Work "
                    "on a copy.",
                )


def _cases() -> list[_Pair]:
    """Return validation cases: predictions with specks, holes, a second part, and labels that
    touch; the last one is a single slice.
    """
    cases = [_case(seed, _SHAPE) for seed in range(3)]
    return [*cases, _case(3, (1, *_SHAPE[1:]))]


def _case(seed: int, shape: tuple[int, int, int]) -> _Pair:
    rng = np.random.default_rng(seed)
    depth = shape[0]
    reference = np.zeros(shape, np.uint8)
    inner = slice(1, depth - 1) if depth > 2 else slice(0, 1)
    reference[inner, 3:12, 2:10] = 1
    core = slice(2, depth - 2) if depth > 4 else slice(0, 1)
    reference[core, 5:9, 4:8] = 2
    prediction = reference.copy()
    prediction[depth // 2, 6, 5] = 0  # a hole in the core, one in the organ, two that touch
    prediction[depth // 2, 10, 4:6] = 0
    prediction[inner, 13:15, 11:13] = 1  # a second part, with a hole and a core of its own
    prediction[depth // 2, 14, 12] = 2
    specks = rng.random(shape) < 0.02
    prediction[specks & (reference == 0)] = rng.integers(1, 3)
    return prediction, reference, Geometry(shape, _SPACING)


def _fitted(subject: Subject) -> Iterator[tuple[Any, dict[str, Any], np.ndarray, Geometry]]:
    """Yield the component and its state for every kind of labels, with each prediction."""
    for labels in _ALL.values():
        component = subject.build()
        state = component.fit(_Validation(), labels)
        for prediction, _, geometry in _cases():
            yield component, state, prediction, geometry


def _dice(prediction: np.ndarray, reference: np.ndarray, values: tuple[int, ...]) -> float:
    found, true = np.isin(prediction, values), np.isin(reference, values)
    size = found.sum() + true.sum()
    return float(2 * (found & true).sum() / size) if size else float("nan")


def _difference(one: np.ndarray, other: np.ndarray) -> str:
    if np.shape(one) != np.shape(other):
        return f"shapes {np.shape(one)} and {np.shape(other)}"
    return f"{np.count_nonzero(one != other)} of {one.size} voxels differ"


def _form(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)
