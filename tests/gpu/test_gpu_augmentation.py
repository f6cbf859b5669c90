"""The augmentation `v2_torch` on a card makes the patches that it makes on a CPU."""

import numpy as np
import pytest
import small_training as small
import torch
from scipy import ndimage

from nnunet_builtin.augmentation.v2 import AugmentationV2Torch
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization

pytestmark = pytest.mark.gpu

STEPS = (
    *("rotation", "rotation_axis", "scaling", "independent_scale", "elastic", "noise", "blur"),
    *("brightness", "additive_brightness", "contrast", "low_resolution", "inverted_gamma", "gamma"),
)
OFTEN = {f"{step}_probability": 0.5 for step in STEPS}
VOXELS = {"elastic_probability": 0.7, "elastic_alpha": (0, 40), "elastic_sigma": (2, 4)}
SETTINGS = {"default": {}, "often": OFTEN, "deformed": VOXELS}
KINDS = {"volume": ((12, 20, 16), False), "slices": ((6, 24, 20), True), "plane": ((40, 32), False)}
CLASSES = 3
#: Rounding may carry a point over the border of the image or of a voxel: there all is different.
SHARE, CLOSE = 1e-3, 1e-3


def configuration(kind, previous=0):
    patch, in_plane = KINDS[kind]
    network = NetworkSpec(
        dimensions=len(patch),
        input_channels=2 + previous,
        output_channels=CLASSES + 1,
        pool_kernels=(),
        conv_kernels=((3,) * len(patch),),
    )
    masks = (True, False)
    changes = {
        "patch_size": patch,
        "network": network,
        "dummy_2d_augmentation": in_plane,
        "normalization": tuple(Normalization(scheme="zscore", use_mask=mask) for mask in masks),
    }
    return Configuration(**{**small.CONFIGURATION.model_dump(), **changes})


def patches(config, seed):
    """Return images and label of a batch to augment: smooth, labels -1 to 3 in blobs."""
    random = np.random.default_rng(seed)
    size = AugmentationV2Torch().generator_patch_size(config)
    deviations = (0, 0) + (1.5,) * len(size)
    images = 5 * ndimage.gaussian_filter(random.normal(size=(2, 2, *size)), deviations)
    blobs = ndimage.gaussian_filter(random.normal(size=(2, 1, *size)), deviations)
    label = np.digitize(blobs, np.quantile(blobs, [0.2, 0.5, 0.7, 0.9])) - 1
    return torch.from_numpy(images).float(), torch.from_numpy(label).to(torch.int16)


def augmented(settings, config, seed, device, previous=None):
    images, label = patches(config, seed)
    batch = {"images": images, "label": label, "previous": previous}
    moved = {key: tensor.to(device) for key, tensor in batch.items() if tensor is not None}
    result = AugmentationV2Torch(**settings).augment_tensors(moved, config, seed)
    results = result["images"], result["label"]
    assert all(tensor.device == torch.device(device) for tensor in results)
    return [tensor.cpu() for tensor in results]


def assert_same(found, expected):
    """Compare images and labels of a batch."""
    (images, label), (expected_images, expected_label) = found, expected
    assert images.shape == expected_images.shape
    assert ((images - expected_images).abs() > CLOSE).float().mean() < SHARE
    assert label.dtype == expected_label.dtype == torch.int16
    assert (label != expected_label).float().mean() < SHARE


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_draws_give_equal_patches(device, kind, settings):
    config = configuration(kind)
    for seed in range(6):
        found = augmented(SETTINGS[settings], config, seed, device)
        assert_same(found, augmented(SETTINGS[settings], config, seed, "cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_draws_give_equal_patches_in_a_cascade(device, kind):
    config = configuration(kind, previous=CLASSES)
    steps = ("operator_probability", "removal_probability")
    settings = {f"cascade_{step}": 1 for step in steps} | {"cascade_removal_size": 0.2}
    for seed in range(4):
        previous = patches(config, seed)[1].clamp(min=0)
        found = augmented(settings, config, seed, device, previous)
        expected = augmented(settings, config, seed, "cpu", previous)
        assert found[0].shape[1] == 2 + CLASSES
        assert_same(found, expected)


def statistics(images, label):
    """Return mean, deviation and quantiles of the images, and the share of each label."""
    places = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99])
    shares = [(label == value).float().mean() for value in range(CLASSES + 1)]
    quantiles = torch.quantile(images, places)
    return torch.stack([images.mean(), images.std(), *quantiles, *shares])


def test_many_draws_have_the_moments_of_a_cpu_for_other_seeds(device):
    config, draws = configuration("volume"), 150
    images, label = patches(config, 0)
    augmentation, numbers = AugmentationV2Torch(**OFTEN), []
    for where, seeds in ((device, range(draws)), ("cpu", range(2000, 2000 + draws))):
        tensors = images.to(where), label.to(where)
        batch = dict(zip(("images", "label"), tensors, strict=True))
        results = [augmentation.augment_tensors(batch, config, seed) for seed in seeds]
        pairs = [(result["images"].cpu(), result["label"].cpu()) for result in results]
        numbers.append(torch.stack([statistics(*pair) for pair in pairs]))
    found, expected = numbers
    error = ((found.var(0) + expected.var(0)) / draws).sqrt()
    assert ((found.mean(0) - expected.mean(0)).abs() < 4 * error).all()
    assert ((found.std(0) + 1e-9).log() - (expected.std(0) + 1e-9).log()).abs().max() < 0.35
