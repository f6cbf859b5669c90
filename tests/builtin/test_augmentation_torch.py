"""Augmentation on tensors: the batches of `v2` for equal seeds, and its distribution over many."""

import numpy as np
import pytest
import torch
from test_augmentation import KINDS, configuration, patches
from test_augmentation_cascade import cascade, with_previous

from nnunet_builtin.augmentation.cascade import operate
from nnunet_builtin.augmentation.draw import OPERATIONS
from nnunet_builtin.augmentation.v2 import AugmentationV2
from nnunet_builtin.augmentation.v2_torch import AugmentationV2Torch
from nnunet_builtin.augmentation.v2_torch import operate as operate_on_tensor

OFTEN = {
    f"{step}_probability": 0.5
    for step in (
        *(
            "rotation",
            "rotation_axis",
            "scaling",
            "independent_scale",
            "elastic",
            "noise",
            "blur",
            "brightness",
        ),
        *("additive_brightness", "contrast", "low_resolution", "inverted_gamma", "gamma"),
    )
}


def statistics(batch) -> np.ndarray:
    """Return mean, deviation, quantiles, correlation of neighbours along each axis, and the share of each label."""
    images = batch["images"].astype(float)
    standard = (images - images.mean()) / images.std()
    neighbours = [np.mean(np.diff(standard, axis=axis) ** 2) for axis in range(2, images.ndim)]
    shares = [np.mean(batch["label"] == value) for value in range(4)]
    return np.array(
        [
            images.mean(),
            images.std(),
            *np.quantile(images, [0.01, 0.1, 0.5, 0.9, 0.99]),
            *neighbours,
            *shares,
        ]
    )


VOXELS = {"elastic_probability": 0.7, "elastic_alpha": (0, 40), "elastic_sigma": (2, 4)}


@pytest.mark.parametrize("settings", [{}, OFTEN, VOXELS], ids=["default", "often", "deformed"])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_make_the_batches_of_v2(kind, settings):
    config = configuration(*KINDS[kind], use_mask=(True, False))
    for seed in range(6):
        batch = patches(config, seed)
        expected = AugmentationV2(**settings).augment(batch, config, seed)
        found = AugmentationV2Torch(**settings).augment(batch, config, seed)
        differing = found["label"] != expected["label"]
        assert differing.mean() < 1e-3
        np.testing.assert_allclose(found["images"], expected["images"], atol=2e-3)
        assert found["label"].dtype == np.int16
        assert found["names"] == batch["names"]


@pytest.mark.slow
def test_many_batches_have_the_statistics_of_v2_for_other_seeds():
    config, batch = configuration((16, 20, 16)), patches(configuration((16, 20, 16)))
    numbers = {
        kind: np.array([statistics(kind().augment(batch, config, seed)) for seed in seeds])
        for kind, seeds in ((AugmentationV2, range(300)), (AugmentationV2Torch, range(1000, 1300)))
    }
    expected, found = numbers.values()
    error = np.sqrt(expected.var(axis=0) / 300 + found.var(axis=0) / 300)
    assert (np.abs(expected.mean(axis=0) - found.mean(axis=0)) < 4 * error).all()
    assert (np.abs(np.log((expected.std(axis=0) + 1e-9) / (found.std(axis=0) + 1e-9))) < 0.25).all()


@pytest.mark.parametrize("kind", KINDS)
def test_cascade_is_that_of_v2(kind):
    config = cascade(kind)
    settings = {
        "cascade_operator_probability": 1,
        "cascade_removal_probability": 1,
        "cascade_removal_size": 0.2,
    }
    for seed in range(4):
        batch = with_previous(config, seed)
        expected = AugmentationV2(**settings).augment(batch, config, seed)
        found = AugmentationV2Torch(**settings).augment(batch, config, seed)
        assert "previous" not in found
        assert found["images"].shape == expected["images"].shape
        assert np.mean(found["images"][:, 2:] != expected["images"][:, 2:]) < 2e-3


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("radius", [1, 1.6, 3.3, 7.9])
def test_operations_are_those_of_arrays(operation, radius):
    for shape in ((20, 17, 24), (5, 24, 3), (30, 22)):
        mask = np.random.default_rng(0).random(shape) < 0.3
        found = operate_on_tensor(torch.from_numpy(mask), operation, radius).numpy()
        np.testing.assert_array_equal(found, operate(mask, operation, radius))


def test_tensors_stay_as_they_were_and_global_randomness_too():
    config, augmentation = configuration(), AugmentationV2Torch(**OFTEN)
    batch = patches(config)
    images, label = torch.from_numpy(batch["images"]), torch.from_numpy(batch["label"])
    before, state = images.clone(), torch.get_rng_state()
    first, second = (augmentation.augment_tensors(images, label, config, 2) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)
        assert one.device == images.device
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first[0].dtype, first[1].dtype, int(first[1].min())) == (torch.float32, torch.int16, 0)
