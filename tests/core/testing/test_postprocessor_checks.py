"""Each check of postprocessors finds the one that is wrong in its way, and no other check does."""

import itertools

import numpy as np
import pytest
from scipy import ndimage
from wrong_components import failures, own_checks

_count = itertools.count()


class WithoutSpecks:
    """A right one, which the wrong ones change: removes parts of the foreground below a size."""

    def fit(self, pairs, labels):
        for _ in pairs():
            pass
        return {"voxels": 6}

    def apply(self, segmentation, geometry, state):
        parts, _ = ndimage.label(segmentation > 0)
        small = np.bincount(parts.ravel()) < state["voxels"]
        small[0] = False
        return np.where(small[parts], segmentation.dtype.type(0), segmentation)


class NumbersAsKeys(WithoutSpecks):
    def fit(self, pairs, labels):
        super().fit(pairs, labels)
        return {"voxels": 6, "of": {1: 2}}

    def apply(self, segmentation, geometry, state):
        cleaned = super().apply(segmentation, geometry, state)
        return cleaned if state["of"].get(1) else np.zeros_like(cleaned)


class ArrayAsState(WithoutSpecks):
    def fit(self, pairs, labels):
        return {**super().fit(pairs, labels), "weights": np.int64(1)}


class Counts(WithoutSpecks):
    def fit(self, pairs, labels):
        return {**super().fit(pairs, labels), "time": next(_count)}


class RemovesLargeParts(WithoutSpecks):
    def fit(self, pairs, labels):
        super().fit(pairs, labels)
        return {"voxels": 10_000}


class InPlace(WithoutSpecks):
    def apply(self, segmentation, geometry, state):
        cleaned = super().apply(segmentation, geometry, state)
        segmentation[...] = cleaned
        return cleaned


class ChangesItsState(WithoutSpecks):
    def apply(self, segmentation, geometry, state):
        state.setdefault("seen", True)
        return super().apply(segmentation, geometry, state)


class AlwaysInt64(WithoutSpecks):
    def apply(self, segmentation, geometry, state):
        return super().apply(segmentation, geometry, state).astype(np.int64)


class AddsCores(WithoutSpecks):
    def apply(self, segmentation, geometry, state):
        cleaned = super().apply(segmentation, geometry, state)
        if cleaned.any() and not (cleaned == 2).any():
            cleaned.flat[np.flatnonzero(cleaned)[0]] = 2
        return cleaned


class ErodesOnce(WithoutSpecks):
    def apply(self, segmentation, geometry, state):
        cleaned = super().apply(segmentation, geometry, state)
        first = np.flatnonzero(cleaned)[:1]  # one voxel less each time
        cleaned.flat[first] = 0
        return cleaned


class NeedsForeground(WithoutSpecks):
    def apply(self, segmentation, geometry, state):
        assert segmentation.max() > 0
        return super().apply(segmentation, geometry, state)


WRONG = {
    NumbersAsKeys: "postprocessor_state_is_json",
    ArrayAsState: "postprocessor_state_is_json",
    Counts: "postprocessor_decides_alike",
    RemovesLargeParts: "postprocessor_helps_where_it_was_fitted",
    InPlace: "postprocessor_leaves_its_input",
    ChangesItsState: "postprocessor_leaves_its_input",
    AlwaysInt64: "postprocessor_keeps_the_form",
    AddsCores: "postprocessor_invents_no_labels",
    ErodesOnce: "postprocessor_is_idempotent",
    NeedsForeground: "postprocessor_takes_empty_maps",
}


def test_a_right_postprocessor_passes_every_check():
    assert failures("postprocessor", WithoutSpecks) == {}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_postprocessor_fails_the_check_that_names_its_fault(wrong):
    assert set(failures("postprocessor", wrong)) == {WRONG[wrong]}


def test_every_check_of_postprocessors_has_one_that_fails_it():
    assert own_checks("postprocessor") == set(WRONG.values())
