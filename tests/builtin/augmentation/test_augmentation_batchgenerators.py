"""Transforms of batchgenerators as steps, and v1's pipeline of them, with which the built-in steps
are compared.
"""

import pickle
import random

import numpy as np
import pytest
from augmentation_samples import (
    KINDS,
    cascade,
    configuration,
    patches,
    sample,
    whole,
    with_previous,
)

from nnunet_builtin.augmentation.v1 import Batchgenerators
from nnunet_builtin.augmentation.v2 import AugmentationV2
from nnunet_core.errors import UsageError

RICIAN = "batchgenerators.transforms.noise_transforms:RicianNoiseTransform"
ROT90 = "batchgenerators.transforms.spatial_transforms:Rot90Transform"


def test_a_transform_by_name_repeats_itself_and_leaves_global_generators_alone():
    config, batch = configuration(), patches(configuration())
    augmentation = AugmentationV2(extra_steps={"noise": ({RICIAN: {"noise_variance": [0.5, 1]}},)})
    state, own_state = random.getstate(), np.random.get_state()[1].copy()
    first = augmentation.augment(batch, config, 1)
    random.seed(3)
    random.setstate(state)
    copied = pickle.loads(pickle.dumps(augmentation))
    np.testing.assert_array_equal(first["images"], copied.augment(batch, config, 1)["images"])
    assert random.getstate() == state
    np.testing.assert_array_equal(np.random.get_state()[1], own_state)
    plain = AugmentationV2().augment(batch, config, 1)
    assert not np.allclose(first["images"], plain["images"])
    assert batch["images"].base is None or batch["images"].flags.writeable
    np.testing.assert_array_equal(batch["images"], patches(config)["images"])


def test_a_transform_that_cannot_move_arrays_says_so():
    config, batch = configuration((16, 16, 16)), patches(configuration((16, 16, 16)))
    more = {"arrays": {"map": batch["images"]}, "like": {"map": "image"}}
    augmentation = AugmentationV2(extra_steps={"noise": ({ROT90: {"p_per_sample": 1.0}},)})
    with pytest.raises(UsageError, match="cannot move the arrays map"):
        augmentation.augment({**batch, **more}, config, 0)


def fixed(monkeypatch, value):
    """Let batchgenerators do every step, with the lower end of every range but this number."""
    monkeypatch.setattr(np.random, "random", lambda *_: 0.0)
    monkeypatch.setattr(
        np.random, "uniform", lambda low=0.0, high=1.0, size=None: value if low else 0.0
    )
    monkeypatch.setattr(random, "uniform", lambda low, high: value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blur", 0.7),
        ("brightness", 0.8),
        ("contrast", 0.8),
        ("low_resolution", 0.6),
        ("inverted_gamma", 0.8),
        ("gamma", 0.8),
    ],
)
def test_each_step_does_what_v1s_does_with_the_same_number(kind, name, value, monkeypatch):
    config = configuration(*KINDS[kind])
    given = whole(config, *sample(config))
    ours = dict(AugmentationV2().ordered)[name].apply(given, {0: value, 1: value})
    fixed(monkeypatch, value)
    theirs = dict(Batchgenerators().ordered)[name].apply(given, 0)
    assert not np.allclose(given.images, theirs.images)
    np.testing.assert_allclose(ours.images, theirs.images, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_patches_and_mirrored_axes_are_those_of_v2(kind):
    config = configuration(*KINDS[kind])
    ours, theirs = AugmentationV2(), Batchgenerators()
    assert theirs.generator_patch_size(config) == ours.generator_patch_size(config)
    assert theirs.mirrored_axes(config) == ours.mirrored_axes(config)
    assert set(dict(theirs.ordered)) <= set(dict(ours.ordered))


def test_a_cascade_of_v1_has_the_channels_of_the_previous_stage():
    config = cascade()
    batch = with_previous(config)
    calm = {"steps": ("spatial", "mirror", "mask")}
    found = Batchgenerators(**calm).augment(batch, config, 2)
    for images, label in zip(found["images"], found["label"], strict=True):
        for value in (1, 2, 3):
            np.testing.assert_array_equal(images[1 + value], label[0] == value)


def statistics(batch) -> np.ndarray:
    """Return mean, deviation, quantiles, differences of neighbours along each axis, and the share
    of each label.
    """
    images = batch["images"][:, :2].astype(float)
    standard = (images - images.mean()) / images.std()
    neighbours = [np.mean(np.diff(standard, axis=axis) ** 2) for axis in range(2, images.ndim)]
    shares = [np.mean(batch["label"] == value) for value in range(4)]
    shares += [batch["images"][:, channel].mean() for channel in range(2, len(batch["images"][0]))]
    quantiles = np.quantile(images, [0.01, 0.1, 0.5, 0.9, 0.99])
    return np.array([images.mean(), images.std(), *quantiles, *neighbours, *shares])


def one(batch):
    """Return the first sample of a batch."""
    return {key: value[:1] for key, value in batch.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_patches_have_the_statistics_of_v1s_pipeline(kind):
    config, samples = cascade(kind), 200
    numbers = []
    for augmentation, first in ((AugmentationV2(), 0), (Batchgenerators(), 10_000)):
        batches = (one(with_previous(config, seed % 20)) for seed in range(samples))
        found = [
            statistics(augmentation.augment(batch, config, first + seed))
            for seed, batch in enumerate(batches)
        ]
        numbers.append(np.array(found))
    ours, theirs = numbers
    error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / samples)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * error + 1e-9).all()
    ratio = (ours.std(axis=0) + 1e-9) / (theirs.std(axis=0) + 1e-9)
    assert (np.abs(np.log(ratio)) < 0.4).all()
