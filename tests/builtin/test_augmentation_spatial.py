"""Cubic interpolation at any points: SciPy's values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_builtin.augmentation import spatial as augmentation_spatial
from nnunet_builtin.augmentation.spatial import along, cubic


def by_scipy(images, where):
    return np.stack([ndimage.map_coordinates(image, where, output=np.float32) for image in images])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_values_are_those_of_scipy_inside_and_outside(data):
    axes = data.draw(st.integers(2, 3))
    size, patch = (tuple(data.draw(st.integers(1, 9)) for _ in range(axes)) for _ in range(2))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    images = rng.normal(size=(2, *size)).astype(np.float32)
    where = [rng.uniform(-1, n, patch) for n in size]
    found = cubic(images, where)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_scipy(images, where), atol=1e-5)


def test_the_first_and_the_last_voxel_are_inside():
    image = np.random.default_rng(0).normal(size=(1, 7, 8)).astype(np.float32)
    where = [places.astype(float) for places in np.mgrid[:7, :8]]
    np.testing.assert_allclose(cubic(image, where), image, atol=1e-5)
    assert not cubic(image, [places + 1e-6 for places in where])[0, -1].any()


@pytest.mark.parametrize("setting", ["_BLOCK", "_SHORT"])
def test_blocks_and_long_axes_change_nothing(monkeypatch, setting):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 11, 12, 13)).astype(np.float32)
    where = [rng.uniform(0, n, (5, 6, 7)) for n in (10, 11, 12)]
    expected = cubic(images, where)
    monkeypatch.setattr(augmentation_spatial, setting, 11)
    np.testing.assert_allclose(cubic(images, where), expected, atol=1e-5)


@pytest.mark.parametrize("axis", range(4))
def test_the_product_along_an_axis(axis):
    rng = np.random.default_rng(0)
    array, matrix = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=((2, 3, 4, 5)[axis], 6))
    np.testing.assert_allclose(
        along(array, matrix, axis), np.moveaxis(np.moveaxis(array, axis, -1) @ matrix, -1, axis)
    )
