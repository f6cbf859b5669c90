"""Skeletons and distances: by hand, of prepared cases, and in a training."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from nnunet_core.data.cases import Case
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_losses.maps import WithMaps, signed_distance, tube


def configuration(dimensions):
    """Return a configuration of 1 x 0.5 x 0.5 mm."""
    network = NetworkSpec(
        dimensions=dimensions,
        input_channels=1,
        output_channels=3,
        pool_kernels=((2,) * dimensions,),
        conv_kernels=((3,) * dimensions,) * 2,
    )
    return Configuration(
        preprocessor="default",
        transpose_forward=(0, 1, 2),
        spacing=(1.0, 0.5, 0.5),
        median_shape=(12, 30, 30),
        patch_size=(16,) * dimensions,
        batch_size=2,
        network=network,
        dummy_2d_augmentation=False,
        batch_dice=True,
        normalization=(Normalization(scheme="zscore"),),
    )


LABELS = Labels(names={0: "background", 1: "left", 2: "right"}, foreground=(2, 1))
REGIONS = Labels(
    names={0: "background", 1: "left", 2: "right"},
    foreground=(1, 2),
    regions=((1, 2), (2,)),
    region_names=("whole", "right"),
    region_order=(1, 2),
)


@pytest.fixture
def case():
    """A bar along x, 7 voxels thick, whose left half is class 1 and right half class 2."""
    label = np.zeros((12, 30, 30), np.int16)
    label[3:10, 12:19, 4:15] = 1
    label[3:10, 12:19, 15:26] = 2
    images = np.random.default_rng(0).normal(size=(1, *label.shape)).astype(np.float32)
    return Case("bar", images, label, Geometry(label.shape, (1.0, 0.5, 0.5)), labels=LABELS)


def maps_of(case, dimensions=3, **settings):
    """Return the prepared case and its only extra array."""
    made = WithMaps(**settings).prepare(case, configuration(dimensions), case.labels.foreground)
    ((_, extra),) = made.arrays.items()
    assert extra.array.shape[1:] == made.geometry.prepared_shape
    return made, extra


def test_distances_on_a_line_by_hand():
    mask = np.array([0, 0, 1, 1, 1, 0, 0, 0], bool)[None]
    expected = [2, 1, 0, -1, 0, 1, 2, 3]
    np.testing.assert_array_equal(signed_distance(mask, (1.0, 1.0))[0], expected)
    np.testing.assert_array_equal(
        signed_distance(mask, (5.0, 0.5))[0], 0.5 * np.array(expected, float)
    )


def test_distances_take_the_nearest_way_in_mm():
    """Voxels of 4 x 1 mm: the square's middle is nearer to its sides than to its ends."""
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    found = signed_distance(mask, (4.0, 1.0))
    assert found[4, 4] == -2
    assert found[0, 4] == 8
    assert found[0, 0] == pytest.approx(np.hypot(8, 2))
    assert (found[2, 2:7] == 0).all()


def test_the_distance_of_a_random_shape_is_that_to_the_nearest_boundary_voxel():
    rng = np.random.default_rng(4)
    mask = ndimage.gaussian_filter(rng.normal(size=(9, 10, 8)), 1) > 0
    edge = [
        place
        for place in np.argwhere(mask)
        if any(
            (place + step).min() >= 0
            and ((place + step) < mask.shape).all()
            and not mask[tuple(place + step)]
            for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
        )
    ]
    spacing = np.array([2.0, 1.0, 0.7])
    found = signed_distance(mask, tuple(spacing))
    for place in rng.integers(0, mask.shape, (40, 3)):
        nearest = np.linalg.norm((np.array(edge) - place) * spacing, axis=1).min()
        expected = -nearest if mask[tuple(place)] else nearest
        assert found[tuple(place)] == pytest.approx(expected)


@pytest.mark.parametrize("full", [False, True])
def test_without_a_boundary_there_is_no_distance(full):
    assert not signed_distance(np.full((3, 4, 5), full), (1.0, 1.0, 1.0)).any()


def test_the_tube_of_a_bar_is_its_middle_and_two_voxels_around_it():
    mask = np.zeros((15, 15, 30), bool)
    mask[3:12, 3:12, 2:28] = True
    found = tube(mask)
    z, y = np.indices((15, 15))
    diamond = abs(z - 7) + abs(y - 7) <= 2
    np.testing.assert_array_equal(found[:, :, 15], diamond)
    assert (found <= mask).all()
    assert not tube(np.zeros((3, 3, 3), bool)).any()


@pytest.mark.parametrize("size", [(6, 6, 20), (2, 2, 2), (1, 1, 1), (4, 4)])
def test_every_part_has_a_skeleton_even_where_thinning_leaves_nothing(size):
    mask = np.zeros([40, 20, 30][: len(size)], bool)
    first = tuple(slice(3, 3 + n) for n in size)
    second = (slice(30, 39), *(slice(5, 12) for _ in size[1:]))
    mask[first] = mask[second] = True
    found = tube(mask)
    assert found[first].any()
    assert found[second].any()
    middle = tuple((slice(3 + (n - 1) // 2, 3 + n // 2 + 1)) for n in size)
    assert found[middle].any()


def test_classes_share_one_skeleton_and_keep_their_values_on_it(case):
    made, extra = maps_of(case)
    assert extra.like == "label"
    assert extra.array.dtype == np.uint8
    skeleton = extra.array[0]
    np.testing.assert_array_equal(skeleton > 0, tube(case.label > 0))
    np.testing.assert_array_equal(skeleton[skeleton > 0], case.label[skeleton > 0])
    joint = skeleton[:, :, 13:17]  # one skeleton runs through where the classes meet
    assert all(joint[:, :, x].any() for x in range(4))
    assert set(np.unique(skeleton)) == {0, 1, 2}
    assert "skeleton" in made.arrays


def test_each_class_may_have_its_own_skeleton(case):
    _, extra = maps_of(case, skeleton_of="class")
    for value in (1, 2):
        np.testing.assert_array_equal(extra.array[0] == value, tube(case.label == value))


def test_each_region_has_its_own_skeleton_and_distance(case):
    case = dataclasses.replace(case, labels=REGIONS)
    masks = [case.label > 0, case.label == 2]
    _, extra = maps_of(case)
    np.testing.assert_array_equal(extra.array, np.stack([tube(mask) for mask in masks]))
    _, extra = maps_of(case, maps=("distance",))
    expected = np.stack([signed_distance(mask, (1.0, 0.5, 0.5)) for mask in masks])
    np.testing.assert_allclose(extra.array, expected, rtol=1e-3)


def test_distances_are_in_the_order_of_the_logits_and_in_their_unit(case):
    """dataset.json lists class 2 first; the network's outputs are 0, 1, 2."""
    _, extra = maps_of(case, maps=("distance",))
    assert extra.like == "image"
    assert extra.array.dtype == np.float16
    assert extra.array[0, 5, 14, 8] < 0 < extra.array[1, 5, 14, 8]
    _, voxels = maps_of(case, maps=("distance",), unit="voxel")
    assert voxels.array[0, 5, 14, 0] == 4  # x of the first voxel of class 1
    assert extra.array[0, 5, 14, 0] == 2


def test_each_slice_of_a_2d_network_has_its_own_maps(case):
    _, extra = maps_of(case, dimensions=2)
    for z in (2, 3, 8):
        np.testing.assert_array_equal(extra.array[0, z] > 0, tube(case.label[z] > 0))
    _, extra = maps_of(case, dimensions=2, maps=("distance",))
    expected = signed_distance(case.label[4] == 1, (0.5, 0.5))
    np.testing.assert_allclose(extra.array[0, 4], expected, rtol=1e-3)
    assert not extra.array[0, 0].any()  # nothing of the class in this slice


def test_a_2d_network_keeps_the_slices_of_each_case(case):
    thick = dataclasses.replace(case, geometry=Geometry(case.label.shape, (3.0, 0.5, 0.5)))
    assert maps_of(thick, dimensions=2)[0].label.shape == case.label.shape
    assert maps_of(thick)[0].label.shape == (36, 30, 30)


def test_a_case_to_predict_has_no_maps(case):
    unlabelled = dataclasses.replace(case, label=None, labels=None)
    assert not WithMaps().prepare(unlabelled, configuration(3)).arrays
