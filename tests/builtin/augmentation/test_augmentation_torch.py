"""Augmentation on tensors, in the training process: the batches of the loaders for equal seeds, and
nothing changed beside.
"""

import numpy as np
import pytest
import torch
from augmentation_samples import KINDS, cascade, configuration, patches, with_previous

from nnunet_builtin.augmentation.v2 import AugmentationV2, AugmentationV2Torch

STEPS = (
    *("rotation", "rotation_axis", "scaling", "independent_scale", "elastic", "noise", "blur"),
    *("brightness", "additive_brightness", "contrast", "low_resolution", "inverted_gamma", "gamma"),
)
OFTEN = {f"{step}_probability": 0.5 for step in STEPS}
CASCADE = {
    "cascade_operator_probability": 1,
    "cascade_removal_probability": 1,
    "cascade_removal_size": 0.2,
}


def on_tensors(augmentation, batch, config, seed):
    keys = [key for key in ("images", "label", "previous") if key in batch]
    tensors = {key: torch.from_numpy(batch[key]) for key in keys}
    result = augmentation.augment_tensors(tensors, config, seed)
    return result["images"], result["label"]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_make_the_batches_of_v2(kind):
    for config, batch, settings in (
        (configuration(*KINDS[kind]), patches(configuration(*KINDS[kind])), OFTEN),
        (cascade(kind), with_previous(cascade(kind)), CASCADE),
    ):
        expected = AugmentationV2(**settings).augment(batch, config, 4)
        images, label = on_tensors(AugmentationV2Torch(**settings), batch, config, 4)
        np.testing.assert_allclose(images.numpy(), expected["images"], atol=1e-5)
        np.testing.assert_array_equal(label.numpy(), expected["label"])


def test_tensors_stay_as_they_were_and_global_randomness_too():
    config, augmentation = configuration(), AugmentationV2Torch(**OFTEN)
    batch = patches(config)
    images = torch.from_numpy(batch["images"])
    before, state = images.clone(), torch.get_rng_state()
    first, second = (on_tensors(augmentation, batch, config, 2) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)
        assert one.device == images.device
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first[0].dtype, first[1].dtype, int(first[1].min())) == (torch.float32, torch.int16, 0)


def test_batches_are_the_same_in_any_number_of_threads():
    config = configuration((40, 56, 40))
    batch, augmentation = patches(config, samples=1), AugmentationV2(**OFTEN)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(augmentation.augment(batch, config, 1))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for key in ("images", "label"):
        np.testing.assert_array_equal(found[0][key], found[1][key])
