"""Cubic interpolation at any points: SciPy's values."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_builtin.augmentation import interpolation
from nnunet_builtin.augmentation.interpolation import products

SUMS = ("_by_bags", "_by_grids")


def cubic(images, where, sums="_by_bags"):
    """Interpolate as on a CPU, or as on another device."""
    with mock.patch.object(interpolation, "_by_bags", getattr(interpolation, sums)):
        points = torch.from_numpy(np.stack(where))
        points = points if sums == "_by_bags" else points.float()
        return interpolation.cubic(torch.from_numpy(images), points).numpy()


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
    for sums in SUMS:
        found = cubic(images, where, sums)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, by_scipy(images, where), atol=1e-4)


def test_the_first_and_the_last_voxel_are_inside():
    image = np.random.default_rng(0).normal(size=(1, 7, 8)).astype(np.float32)
    where = [places.astype(float) for places in np.mgrid[:7, :8]]
    np.testing.assert_allclose(cubic(image, where), image, atol=1e-5)
    assert not cubic(image, [places + 1e-6 for places in where])[0, -1].any()


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 11, 12, 13)).astype(np.float32)
    where = [rng.uniform(0, n, (5, 6, 7)) for n in (10, 11, 12)]
    expected = cubic(images, where)
    monkeypatch.setattr(interpolation, "_BLOCK", 11)
    np.testing.assert_allclose(cubic(images, where), expected, atol=1e-5)


@pytest.mark.parametrize("axis", range(3))
def test_the_product_along_an_axis(axis):
    rng = np.random.default_rng(0)
    shape = (3, 40, 5)
    array = rng.normal(size=(2, *shape)).astype(np.float32)
    matrix = rng.normal(size=(shape[axis], 70))
    matrices = [matrix if other == axis else None for other in range(3)]
    found = products(torch.from_numpy(array), matrices).numpy()
    expected = np.moveaxis(np.moveaxis(array, axis + 1, -1) @ matrix, -1, axis + 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
