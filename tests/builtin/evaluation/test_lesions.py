"""Lesions: what counts as one, and which predicted ones are true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from nnunet_builtin.evaluation.lesions import LesionCounts, LesionRule, count_lesions


def line(*values: int) -> np.ndarray:
    return np.array([[values]], bool)


@pytest.mark.parametrize(
    ("predicted", "true", "counts"),
    [
        ((1, 1, 0, 0, 1), (1, 1, 0, 0, 1), (2, 2, 2)),
        ((1, 1, 0, 0, 0), (1, 1, 0, 0, 1), (1, 2, 1)),
        ((1, 1, 0, 0, 1), (1, 1, 0, 0, 0), (2, 1, 1)),
        # one prediction over two lesions finds one of them
        ((1, 1, 1, 1, 1), (1, 1, 0, 1, 1), (1, 2, 1)),
        # two pieces of one lesion: one is true, one false
        ((1, 1, 0, 1, 1), (1, 1, 1, 1, 1), (2, 1, 1)),
        ((1, 0, 0, 0, 0), (0, 0, 0, 0, 1), (1, 1, 0)),
        ((0, 0, 0, 0, 0), (0, 1, 0, 1, 0), (0, 2, 0)),
    ],
)
def test_components_are_matched_one_to_one(predicted, true, counts):
    found = count_lesions(line(*predicted), line(*true), LesionRule())
    assert found == LesionCounts(*counts)
    assert found.f1 == 2 * counts[2] / (counts[0] + counts[1])


def test_as_many_pairs_are_matched_as_there_can_be():
    """The middle prediction touches both lesions, the first one only the first."""
    predicted = np.array([[[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]], bool)
    true = np.array([[[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1]]], bool)
    assert count_lesions(predicted, true, LesionRule(6, 0.1)) == LesionCounts(2, 2, 2)


def test_the_overlap_that_counts_is_intersection_over_union():
    predicted, true = line(1, 1, 1, 1, 0, 0), line(0, 0, 0, 1, 1, 1)  # 1 of 6
    assert count_lesions(predicted, true, LesionRule(overlap=1 / 6)).matched == 1
    assert count_lesions(predicted, true, LesionRule(overlap=0.17)).matched == 0


@pytest.mark.parametrize(("connectivity", "number"), [(6, 3), (18, 2), (26, 1)])
def test_neighbours_share_a_face_an_edge_or_a_corner(connectivity, number):
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 2, 2] = True
    mask[0, 1, 1], mask[1, 2, 2] = True, True
    rule = LesionRule(connectivity)
    found = count_lesions(mask, mask, rule).true
    assert (found == 3) if connectivity == 6 else found == number


@settings(max_examples=50, deadline=None)
@given(arrays(bool, (3, 4, 5)), arrays(bool, (3, 4, 5)))
def test_a_map_finds_itself_and_matching_is_symmetric(mine, true):
    there, back = (count_lesions(*maps, LesionRule()) for maps in ((mine, true), (true, mine)))
    assert (there.matched, there.predicted, there.true) == (back.matched, back.true, back.predicted)
    itself = count_lesions(true, true, LesionRule())
    assert itself.matched == itself.true
