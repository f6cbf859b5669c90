"""Surface metrics against shapes whose distances are known, and against the library's own."""

import warnings
from unittest import mock

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_builtin.evaluation import surfaces
from nnunet_builtin.evaluation.surfaces import surface_distances

SPACINGS = [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (0.5, 0.5, 0.5)]


def ball(radius: float, spacing, size: float = 60, shift: float = 0) -> np.ndarray:
    """A ball of `radius` mm in the middle of a cube of `size` mm, moved by `shift` mm along x."""
    axes = [np.arange(round(size / step)) * step + step / 2 - size / 2 for step in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + (x - shift) ** 2 < radius**2


def accuracy(spacing) -> float:
    """Half the edge (mm) of a cube as large as a voxel, and a little: elements of surfaces are its
    corners.
    """
    return 0.6 * float(np.prod(spacing)) ** (1 / 3)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_concentric_balls_lie_apart_by_the_difference_of_their_radii(spacing):
    distances = surface_distances(ball(20, spacing), ball(16, spacing), spacing)
    assert distances.average() == pytest.approx(4, abs=accuracy(spacing))
    assert distances.hausdorff95() == pytest.approx(4, abs=accuracy(spacing))
    assert distances.surface_dice(4 - 3 * accuracy(spacing)) < 0.1
    assert distances.surface_dice(4 + max(spacing)) == 1


@pytest.mark.parametrize("spacing", SPACINGS)
def test_surfaces_of_balls_have_the_area_of_balls(spacing):
    mask = ball(20, spacing)
    found = surface_distances(mask, mask, spacing).found
    area = 4 * np.pi * 20**2
    assert found["surfel_areas_gt"].sum() == pytest.approx(area, rel=0.1 + 0.03 * max(spacing))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_moved_ball_has_the_distances_of_the_formula(spacing):
    """From a point of a sphere of radius r to the same sphere, moved by d: |sqrt(r2 + d2 - 2 r d
    cos t) - r|, with cos t even from -1 to 1 over the area.
    """
    radius, moved = 20, 3
    cosines = np.linspace(-1, 1, 100001)
    exact = np.abs(np.sqrt(radius**2 + moved**2 - 2 * radius * moved * cosines) - radius)
    there = ball(radius, spacing, shift=moved)
    distances = surface_distances(ball(radius, spacing), there, spacing)
    assert distances.average() == pytest.approx(exact.mean(), abs=accuracy(spacing))
    assert distances.hausdorff95() == pytest.approx(np.percentile(exact, 95), abs=accuracy(spacing))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("axis", range(3))
def test_a_cube_moved_by_voxels_has_distances_of_whole_steps(spacing, axis):
    mask = np.zeros((20, 20, 20), bool)
    mask[5:13, 5:13, 5:13] = True
    distances = surface_distances(mask, np.roll(mask, 2, axis), spacing)
    far = 2 * spacing[axis]
    assert distances.found["distances_gt_to_pred"].max() == far
    assert distances.hausdorff95() == far
    assert distances.surface_dice(far) == 1
    assert distances.surface_dice(far - 0.01) < 1


def test_a_tolerance_of_one_voxel_includes_it_whatever_single_precision_makes_of_the_spacing():
    mask = np.zeros((8, 8, 8), bool)
    mask[2:5, 2:5, 2:5] = True
    spacing = [float(np.float32(0.3))] * 3
    assert surface_distances(mask, np.roll(mask, 1, 0), spacing).surface_dice(0.3) == 1


def test_the_surface_of_a_slice_is_its_outline():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    distances = surface_distances(np.roll(mask, 3, 1), mask, (0.5, 2.0))
    assert distances.found["distances_gt_to_pred"].max() == 6
    lengths = distances.found["surfel_areas_gt"].sum()
    assert lengths == pytest.approx(2 * 10 * 0.5 + 2 * 10 * 2, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    arrays(bool, (5, 6, 4)),
    arrays(bool, (5, 6, 4)),
    st.tuples(*[st.sampled_from([0.3, 1.0, 2.5])] * 3),
    st.booleans(),
    st.booleans(),
)
def test_the_numbers_are_those_of_the_library(mine, true, spacing, flat, by_map):
    if flat:
        mine, true, spacing = mine[0], true[0], spacing[:2]
    mine[-1, -1], true[0, 0] = True, True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = surface_distance.compute_surface_distances(true, mine, spacing)
    with mock.patch.multiple(surfaces, _NEAR=0.6 if by_map else 8, _FEW_PAIRS=0):
        found = surface_distances(mine, true, spacing)
    for name, values in theirs.items():
        assert len(found.found[name]) == len(values), name
        assert found.found[name].sum() == pytest.approx(values.sum(), rel=1e-6, abs=1e-9), name
    assert found.hausdorff95() == pytest.approx(
        surface_distance.compute_robust_hausdorff(theirs, 95)
    )
    dice = surface_distance.compute_surface_dice_at_tolerance(theirs, 1.1)
    assert found.surface_dice(1.1) == pytest.approx(dice, abs=1e-9)
    ways = surface_distance.compute_average_surface_distance(theirs)
    areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    assert found.average() == pytest.approx(np.average(ways, weights=areas), rel=1e-6)


def test_a_small_prediction_in_the_middle_of_a_large_organ_is_measured_by_a_map():
    """From its elements the whole surface around is about equally near: a tree takes minutes."""
    spacing = (1.0, 1.0, 1.0)
    organ, core = ball(28, spacing), ball(12, spacing)
    with mock.patch.object(surfaces, "_looked_up", wraps=surfaces._looked_up) as looked_up:
        distances = surface_distances(core, organ, spacing)
    assert looked_up.call_count > 0
    assert distances.average() == pytest.approx(16, abs=accuracy(spacing))
    assert distances.hausdorff95() == pytest.approx(16, abs=accuracy(spacing))
