"""Resampling on a card is that of a CPU, of images and back of probabilities."""

import numpy as np
import pytest

from nnunet_builtin.preprocessing import resampling, resampling_torch
from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_builtin.preprocessing.resampling import resample_images, resample_probabilities
from nnunet_core.data.cases import Case
from nnunet_core.data.images import Geometry
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization

pytestmark = pytest.mark.gpu

SHAPE = (9, 20, 16)
SPACINGS = {"isotropic": (1.0, 0.9, 1.1), "thick slices": (5.0, 1.0, 1.1)}


def on(device, preprocessor, monkeypatch):
    """Return the preprocessor on a device; a CPU in the place of a card goes the way of cards."""
    monkeypatch.setattr(resampling, "CPU", "")
    return preprocessor.on(str(device))


def configuration(axes=(0, 1, 2)):
    network = NetworkSpec(
        dimensions=3,
        input_channels=2,
        output_channels=2,
        pool_kernels=((2, 2, 2),),
        conv_kernels=((3, 3, 3), (3, 3, 3)),
    )
    return Configuration(
        preprocessor="builtin/default",
        transpose_forward=axes,
        spacing=(1.3, 0.7, 0.8),
        median_shape=(16, 16, 16),
        patch_size=(16, 16, 16),
        batch_size=2,
        network=network,
        dummy_2d_augmentation=False,
        batch_dice=False,
        normalization=(Normalization(scheme="zscore"),) * 2,
    )


def make_case(spacing):
    random = np.random.default_rng(0)
    images = random.normal(5, 1, (2, *SHAPE)).astype(np.float32)
    images[:, :2, :, -3:] = 0  # to be cropped, in part
    label = random.integers(0, 3, SHAPE).astype(np.int16)
    return Case("case", images, label, Geometry(SHAPE, spacing))


@pytest.mark.parametrize("axis", [None, 0, 2])
@pytest.mark.parametrize(("order", "order_z"), [(3, 0), (3, 3), (1, 0)])
def test_images_are_those_of_a_cpu(device, axis, order, order_z):
    images = np.random.default_rng(0).normal(0, 100, (2, 7, 19, 11)).astype(np.float32)
    for shape in ((12, 9, 7), (7, 9, 40)):
        expected = resample_images(images, shape, axis, order, order_z)
        found = np.empty_like(expected)
        resampling_torch.resample(images, found, axis, order, order_z, str(device))
        np.testing.assert_allclose(found, expected, atol=1e-3)  # of images of deviation 100


@pytest.mark.parametrize("axis", [None, 1])
def test_probabilities_are_those_of_a_cpu_and_keep_their_sum(device, monkeypatch, axis):
    classes = np.random.default_rng(0).dirichlet(np.ones(3), (6, 9, 12))
    probabilities = classes.transpose(3, 0, 1, 2).astype(np.float32)
    expected = resample_probabilities(probabilities, (11, 5, 20), axis)
    monkeypatch.setattr(resampling, "CPU", "")
    found = resample_probabilities(probabilities, (11, 5, 20), axis, device=str(device))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("resample", ["all", "in_plane"])
def test_a_case_is_prepared_and_restored_as_on_a_cpu(device, monkeypatch, spacing, axes, resample):
    case, config = make_case(SPACINGS[spacing]), configuration(axes)
    plain = DefaultPreprocessor(resample)
    expected = plain.prepare(case, config, (1, 2))
    shape = expected.geometry.prepared_shape
    classes = np.random.default_rng(1).dirichlet(np.ones(3), shape)
    probabilities = classes.transpose(3, 0, 1, 2).astype(np.float32)
    expected_back = plain.restore(probabilities, expected.geometry)

    moved = on(device, plain, monkeypatch)
    found = moved.prepare(case, config, (1, 2))
    assert found.geometry == expected.geometry
    np.testing.assert_allclose(found.images, expected.images, atol=1e-4)
    np.testing.assert_array_equal(found.label, expected.label)
    for value in (1, 2):
        np.testing.assert_array_equal(found.class_locations[value], expected.class_locations[value])
    back = moved.restore(probabilities, found.geometry)
    np.testing.assert_allclose(back, expected_back, atol=1e-6)
