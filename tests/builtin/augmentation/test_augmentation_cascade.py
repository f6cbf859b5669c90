"""Cascade: the previous stage moves with the label, its random changes are v1's, and it becomes
image channels.
"""

import numpy as np
import pytest
import torch
from augmentation_samples import (
    CLASSES,
    KINDS,
    VOLUME,
    applied,
    cascade,
    configuration,
    drawn,
    patches,
    sample,
    with_previous,
)
from scipy import ndimage
from skimage.morphology import ball

from nnunet_builtin.augmentation.cascade import (
    OPERATIONS,
    Operator,
    Removal,
    append_previous,
    ball_size,
    operate,
)
from nnunet_builtin.augmentation.v2 import AugmentationV2, NoAugmentation
from nnunet_core.errors import UsageError

CALM = {"cascade_operator_probability": 0.0}


def one_hot(label):
    return np.concatenate([label == value for value in range(1, CLASSES + 1)]).astype(np.float32)


def by_scipy(mask, operation, radius):
    structure = ball((ball_size(radius) - 1) / 2)
    steps = {
        "dilation": lambda m: ndimage.binary_dilation(m, structure),
        "erosion": lambda m: ndimage.binary_erosion(m, structure, border_value=True),
    }
    steps["closing"] = lambda m: steps["erosion"](steps["dilation"](m))
    steps["opening"] = lambda m: steps["dilation"](steps["erosion"](m))
    return steps[operation](mask)


def blobs(shape, seed, share=0.3):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise > np.quantile(noise, 1 - share)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("radius", [1, 1.3, 1.5, 2, 2.9, 4.2, 7.99])
def test_operations_are_those_of_scipy_with_v1s_ball(operation, radius):
    for seed, shape in enumerate([(20, 17, 24), (5, 24, 24), (30, 3, 9)]):
        for share in (0.02, 0.3, 0.95):
            mask = blobs(shape, seed, share)
            found = operate(torch.from_numpy(mask), operation, radius).numpy()
            np.testing.assert_array_equal(found, by_scipy(mask, operation, radius))
    assert not operate(torch.zeros((4, 4, 4), dtype=torch.bool), operation, radius).any()
    assert operate(torch.ones((4, 4, 4), dtype=torch.bool), operation, radius).all()


@pytest.mark.parametrize("radius", [1, 1.2, 1.5, 1.99, 2.5, 3.3, 7.6, 8])
def test_size_of_v1s_ball(radius):
    assert (ball_size(radius),) * 3 == ball(radius).shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_previous_stage_moves_like_the_label(kind):
    config = cascade(kind)
    for seed in range(4):
        batch = with_previous(config, seed)
        found = AugmentationV2(1, None, 1, **CALM, elastic_probability=0.5).augment(
            batch, config, seed
        )
        assert found["images"].shape == (2, 2 + CLASSES, *config.patch_size)
        assert found["images"].dtype == np.float32
        assert "previous" not in found
        for images, label in zip(found["images"], found["label"], strict=True):
            np.testing.assert_array_equal(images[2:], one_hot(label))
        alone = AugmentationV2(1, None, 1, elastic_probability=0.5).augment(
            patches(config, seed), config, seed
        )
        np.testing.assert_array_equal(found["label"][0], alone["label"][0])
        np.testing.assert_array_equal(found["images"][0, :2], alone["images"][0])


def test_channels_that_are_0_outside_keep_the_previous_stage():
    config = cascade()
    masked = [
        normalization.model_copy(update={"use_mask": True})
        for normalization in config.normalization
    ]
    images, label = sample(config)
    previous = np.full_like(label, 2)
    config = config.model_copy(update={"normalization": masked})
    found, found_label = applied(images, label, config, previous)
    assert (found[:2] == 0).any()
    assert (found[3] == 1).all()
    assert found_label.shape == (1, *VOLUME)


def test_operators_follow_each_other_and_take_voxels_from_other_classes():
    config = cascade()
    images, label = sample(config)
    operators = (
        Operator(1, "dilation", 2.0),
        Operator(2, "closing", 1.5),
        Operator(0, "erosion", 1.0),
    )
    expected = one_hot(applied(images, label, config)[1]).astype(bool)
    for operator in operators:
        before, channel = expected[operator.channel].copy(), operator.channel
        expected[channel] = by_scipy(before, operator.operation, operator.radius)
        expected[np.arange(CLASSES) != channel] &= ~(expected[channel] & ~before)
    previous = np.maximum(label, 0)
    found, _ = applied(images, label, config, previous, cascade_operator=operators)
    np.testing.assert_array_equal(found[2:], expected)
    assert found[2:].sum(axis=0).max() == 1


@pytest.mark.parametrize("fill", [None, 2])
def test_removal_takes_one_small_component(fill):
    config = cascade()
    previous = np.zeros((1, *VOLUME), np.int16)
    previous[0, 1:4, 1:4, 1:4] = previous[0, 4, 4, 4] = 1
    previous[0, 10:12, 10:12, 10:12] = 1
    previous[0, :, 15:] = 1
    images = np.zeros((2, *VOLUME), np.float32)
    augmentation = AugmentationV2(cascade_removal_size=0.15)
    given = (images, previous, config, previous, augmentation)
    found, _ = applied(*given, cascade_removal=(Removal(0, 0.99, fill),))
    gone = (previous[0] == 1) & (found[2] == 0)
    assert gone.sum() == 2**3
    assert gone[10:12, 10:12, 10:12].all()
    assert (found[4] == 1).sum() == (0 if fill is None else 2**3)
    first, _ = applied(*given, cascade_removal=(Removal(0, 0.0, fill),))
    assert ((previous[0] == 1) & (first[2] == 0)).sum() == 3**3 + 1


def test_draws_have_v1s_frequencies():
    rng, config = np.random.default_rng(0), cascade()
    draws = drawn(AugmentationV2(), rng, config, 2, 2000)
    operators = [d["cascade_operator"] for d in draws if d["cascade_operator"]]
    assert len(operators) / 2000 == pytest.approx(0.4, abs=0.03)
    assert {tuple(sorted(o.channel for o in several)) for several in operators} == {(0, 1, 2)}
    assert len({tuple(o.channel for o in several) for several in operators}) == 6
    every = [o for several in operators for o in several]
    for operation in OPERATIONS:
        assert np.mean([o.operation == operation for o in every]) == pytest.approx(0.25, abs=0.03)
    radii = np.array([o.radius for o in every])
    assert 1 <= radii.min() < 1.05
    assert 7.95 < radii.max() <= 8
    assert not any(d["cascade_removal"] for d in draws)


def test_a_setting_makes_the_removal_work_as_intended():
    rng, config = np.random.default_rng(0), cascade()
    settings = {"cascade_removal_size": 0.15, "cascade_removal_fill_probability": 0.25}
    everything = drawn(AugmentationV2(**settings), rng, config, 2, 2000)
    draws = [draw["cascade_removal"] or () for draw in everything]
    every = [removal for removals in draws for removal in removals]
    assert np.mean([len(removals) == CLASSES for removals in draws]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([removal.fill is not None for removal in every]) == pytest.approx(0.25, abs=0.04)
    assert all(removal.fill != removal.channel for removal in every)
    plain = drawn(AugmentationV2(), rng, configuration(), 2, 100)
    assert not any(draw["cascade_operator"] for draw in plain)


def test_equal_seeds_give_equal_cascades_and_change_nothing():
    config = cascade()
    augmentation = AugmentationV2(cascade_operator_probability=1, cascade_removal_size=0.15)
    batch = with_previous(config)
    before = batch["previous"].copy()
    first, second = augmentation.augment(batch, config, 3), augmentation.augment(batch, config, 3)
    np.testing.assert_array_equal(first["images"], second["images"])
    np.testing.assert_array_equal(batch["previous"], before)
    assert not np.array_equal(first["images"][0, 2:], one_hot(first["label"][0]))


def test_without_augmentation_it_is_appended():
    config, batch = cascade(), with_previous(cascade())
    for found in (append_previous(batch, config), NoAugmentation().augment(batch, config, 0)):
        assert "previous" not in found
        np.testing.assert_array_equal(found["images"][:, :2], batch["images"])
        np.testing.assert_array_equal(found["images"][1, 2:], one_hot(batch["label"][1]))
    plain = patches(config)
    assert append_previous(plain, config) is plain


def test_a_network_without_channels_for_it_is_an_error():
    config = configuration()
    for work in (append_previous, lambda batch, config: AugmentationV2().augment(batch, config, 0)):
        with pytest.raises(UsageError, match="takes 2 channels"):
            work(with_previous(config), config)
