"""DA5: batchgenerators' numbers for fixed draws, v1's order of steps, frequencies and ranges."""

import numpy as np
import pytest
import torch
from augmentation_samples import KINDS, applied, configuration, drawn, patches, sample
from batchgenerators.augmentations import color_augmentations as color
from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy
from batchgenerators.augmentations.spatial_transformations import (
    augment_rot90,
    augment_transpose_axes,
)
from batchgenerators.transforms.local_transforms import (
    BrightnessGradientAdditiveTransform,
    LocalGammaTransform,
)
from batchgenerators.transforms.noise_transforms import BlankRectangleTransform, SharpeningTransform
from scipy import ndimage

from nnunet_builtin.augmentation.da5 import DA5
from nnunet_builtin.augmentation.local import (
    Bump,
    LocalBrightness,
    LocalGamma,
    Rectangles,
    Sharpening,
)
from nnunet_core.contracts.augmentation import Sample

CUBE = (16, 16, 16)


def image(shape=CUBE, seed=0):
    return (
        ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5).astype(
            np.float32
        )
        * 5
    )


def bump(shape, strength):
    """Return a Gaussian, and the arguments that make batchgenerators place it."""
    place, deviation = (0.3, 1.2, -0.4)[: len(shape)], (5.0, 9.0, 16.0)[: len(shape)]
    centre = tuple(share * voxels for share, voxels in zip(place, shape, strict=True))
    return Bump(centre, deviation, strength), (
        lambda size, axis: deviation[axis],
        lambda size, axis: place[axis],
    )


def by(step, array, decision):
    """Return the only channel after a step."""
    config = configuration(array.shape, use_mask=(False,))
    label = torch.zeros(1, *array.shape, dtype=torch.int16)
    sample = Sample(torch.from_numpy(array[None]), label, config)
    return step.apply(sample, {0: decision}).images[0].numpy()


def applied_by_da5(*given, **decisions):
    return applied(*given, augmentation=DA5(), **decisions)


def transformed(transform, array):
    return transform(data=array[None, None].copy())["data"][0, 0]


@pytest.mark.parametrize("shape", [(18, 24, 20), (40, 32)])
def test_local_steps_are_those_of_batchgenerators(shape):
    array = image(shape)
    place, (scale, loc) = bump(shape, -3.5)
    gradient = BrightnessGradientAdditiveTransform(
        scale, loc, lambda *_: -3.5, False, mean_centered=False
    )
    np.testing.assert_allclose(
        by(LocalBrightness(), array, place), transformed(gradient, array), atol=1e-4
    )
    for exponent in (0.2, 3.0):
        place, _ = bump(shape, exponent)
        gamma = LocalGammaTransform(scale, loc, exponent, False)
        np.testing.assert_allclose(
            by(LocalGamma(), array, place), transformed(gamma, array), atol=1e-4
        )
    for strength in (0.1, 0.9):
        np.testing.assert_allclose(
            by(Sharpening(), array, strength),
            transformed(SharpeningTransform(strength), array),
            atol=1e-4,
        )


def test_wide_and_distant_gaussians_have_less_weight_as_in_v1():
    shape = (8, 8, 8)
    place = Bump((12.0,) * 3, (200.0,) * 3, 3.0)
    gamma = LocalGammaTransform(lambda *_: 200.0, lambda *_: 1.5, lambda: 3.0, False)
    np.testing.assert_allclose(place.weights(shape), gamma._generate_kernel(shape), atol=1e-6)
    assert place.weights(shape).max() < 0.9


def test_rectangles_are_those_of_batchgenerators(monkeypatch):
    array, drawn = image(), iter([2, 3, 4, 5, 1, 6, 2, 5, 5, 5, 8, 7, 3])
    monkeypatch.setattr(np.random, "random_integers", lambda *_: next(drawn), raising=False)
    sizes = [[1, 5]] * 3
    expected = transformed(
        BlankRectangleTransform(sizes, np.mean, (1, 5), p_per_sample=1, p_per_channel=1), array
    )
    boxes = (
        tuple(slice(start, start + size) for start, size in zip((1, 6, 2), (3, 4, 5), strict=True)),
        tuple(slice(start, start + size) for start, size in zip((8, 7, 3), (5, 5, 5), strict=True)),
    )
    np.testing.assert_allclose(by(Rectangles(), array, boxes), expected, atol=1e-6)


def test_turned_and_transposed_like_batchgenerators(monkeypatch):
    config = configuration(CUBE)
    images, label = sample(config)
    plain, plain_label = applied_by_da5(images, label, config)
    choices = iter([3, np.array([2, 0])])
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(choices))
    expected, expected_label = augment_rot90(plain, plain_label)
    found, found_label = applied_by_da5(images, label, config, quarter_turns=(3, (0, 2)))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_label, expected_label)

    def shuffle(axes):
        axes[:] = [3, 1, 2]

    monkeypatch.setattr(np.random, "shuffle", shuffle)
    expected, expected_label = augment_transpose_axes(plain, plain_label)
    found, found_label = applied_by_da5(images, label, config, transposition=(2, 0, 1))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_label, expected_label)


def test_steps_follow_each_other_in_v1s_order(monkeypatch):
    config = configuration(CUBE)
    images, label = sample(config)
    expected, _ = applied_by_da5(images, label, config)
    noise = np.random.default_rng(0).normal(size=(2, *CUBE)).astype(np.float32)
    both, box = {0: 0.8, 1: 0.8}, (slice(2, 7), slice(3, 5), slice(1, 4))
    place, (scale, loc) = bump(CUBE, 0.8)
    decisions = {
        "noise": noise,
        "median_or_blur": {"median": {0: 3, 1: 3}},
        "additive_brightness": both,
        "contrast": (both, True),
        "low_resolution": both,
        "inverted_gamma": both,
        "second_inverted_gamma": both,
        "mirror": (0, 2),
        "rectangles": {0: (box,), 1: (box,)},
        "gradient": {0: place, 1: place},
        "local_gamma": {0: place, 1: place},
        "sharpening": both,
    }
    expected = np.stack([ndimage.median_filter(channel, 3) for channel in expected]) + noise + 0.8
    monkeypatch.setattr(np.random, "random", lambda: 0.0)
    monkeypatch.setattr(np.random, "uniform", lambda low=0.0, high=1.0: low)
    expected = augment_linear_downsampling_scipy(
        color.augment_contrast(expected, (0.8, 2)), (0.8, 0.8), order_downsample=0, order_upsample=3
    )
    for _ in range(2):
        expected = color.augment_gamma(
            expected, (0.8, 2), True, per_channel=True, retain_stats=True
        )
    expected = expected[:, ::-1, :, ::-1].copy()
    for channel in expected:
        channel[box] = channel[box].mean()
    for transform in (
        BrightnessGradientAdditiveTransform(scale, loc, lambda *_: 0.8, False, mean_centered=False),
        LocalGammaTransform(scale, loc, lambda: 0.8, False),
        SharpeningTransform(0.8),
    ):
        expected = transform(data=expected[None])["data"][0]
    found, _ = applied_by_da5(images, label, config, **decisions)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    unclipped, _ = applied_by_da5(images, label, config, contrast=({0: 2.0}, False))
    plain, _ = applied_by_da5(images, label, config)
    np.testing.assert_allclose(
        unclipped[0], (plain[0] - plain[0].mean()) * 2 + plain[0].mean(), atol=1e-4
    )


def test_draws_have_v1s_frequencies():
    rng, config, n = np.random.default_rng(0), configuration(CUBE), 4000
    draws = [flat(draw) for draw in drawn(DA5(), rng, config, 2, n)]
    per_channel = {
        "median": 0.5 * 0.2 * 0.5,
        "blur": 0.5 * 0.2 * 0.5,
        "brightness": 0,
        "additive_brightness": 0.1 * 0.5,
        "contrast": 0.2 * 0.5,
        "low_resolution": 0.15 * 0.5,
        "inverted_gamma": 0.1,
        "second_inverted_gamma": 0.1,
        "gamma": 0,
        "rectangles": 0.4 * 0.5,
        "gradient": 0.3 * 0.5,
        "local_gamma": 0.3 * 0.5,
        "sharpening": 0.2 * 0.5,
    }
    for name, share in per_channel.items():
        found = sum(len(draw.get(name) or {}) for draw in draws) / (2 * n)
        assert found == pytest.approx(share, abs=0.02), name
    samples = {
        "angles": 0.4,
        "scale": 0.2,
        "noise": 0.1,
        "quarter_turns": 0.5,
        "transposition": 0.5,
    }
    for name, share in samples.items():
        found = np.mean([draw[name] is not None for draw in draws])
        assert found == pytest.approx(share, abs=0.03), name
    clipped = [draw["clipped"] for draw in draws if "clipped" in draw]
    assert np.mean(clipped) == pytest.approx(0.5, abs=0.06)
    assert all(isinstance(draw["scale"], tuple) for draw in draws if draw["scale"])
    turns = [draw["quarter_turns"] for draw in draws if draw["quarter_turns"]]
    shares = np.bincount([times for times, _ in turns]) / len(turns)
    assert shares == pytest.approx(np.full(4, 1 / 4), abs=0.03)
    assert {plane for _, plane in turns} == {(0, 1), (0, 2), (1, 2)}
    assert len({draw["transposition"] for draw in draws if draw["transposition"]}) == 6


def flat(draw):
    """Return decisions with those of composed steps under names of their own."""
    motion, either = draw["spatial"], draw["median_or_blur"] or {}
    found = {**draw, **either, "angles": motion.angles, "scale": motion.scale}
    if draw["contrast"]:
        found["contrast"], found["clipped"] = draw["contrast"]
    return found


def assert_fills(values, low, high):
    room = 0.05 * (high - low)
    assert low - 1e-9 <= values.min() <= low + room
    assert high - room <= values.max() <= high + 1e-9


def test_ranges_of_draws():
    rng, config = np.random.default_rng(0), configuration((30, 40, 60))
    draws = [flat(draw) for draw in drawn(DA5(median_probability=1), rng, config, 2, 3000)]
    assert {v for d in draws for v in d.get("median", {}).values()} == {2, 3, 4, 5, 6, 7}
    boxes = [box for d in draws for several in (d["rectangles"] or {}).values() for box in several]
    for axis, (low, high) in enumerate([(3, 10), (4, 13), (6, 20)]):
        assert {box[axis].stop - box[axis].start for box in boxes} == set(range(low, high + 1))
        assert min(box[axis].start for box in boxes) == 1
        assert max(box[axis].stop for box in boxes) == config.patch_size[axis]
    assert {len(several) for d in draws for several in (d["rectangles"] or {}).values()} == {
        1,
        2,
        3,
        4,
        5,
    }
    bumps = [b for d in draws for b in (d["gradient"] or {}).values()]
    strengths = np.abs([b.strength for b in bumps])
    assert_fills(strengths, 1, 5)
    deviations = np.array([b.deviation for b in bumps]) / config.patch_size
    assert_fills(deviations, 0.15, 1)
    centres = np.array([b.centre for b in bumps]) / config.patch_size
    assert_fills(centres, -0.5, 1.5)
    exponents = np.array([b.strength for d in draws for b in (d["local_gamma"] or {}).values()])
    assert np.mean(exponents < 1) == pytest.approx(0.5, abs=0.05)
    assert_fills(exponents[exponents < 1], 0.01, 0.8)
    assert_fills(exponents[exponents > 1], 1.5, 4)


@pytest.mark.parametrize(
    ("patch", "dummy_2d", "axes"),
    [
        ((40, 56, 40), False, (0, 2)),
        ((6, 24, 24), True, (1, 2)),
        ((24, 24), False, (0, 1)),
        ((8, 16, 24), False, None),
    ],
)
def test_only_axes_of_one_size_are_turned(patch, dummy_2d, axes):
    rng, config = np.random.default_rng(0), configuration(patch, dummy_2d)
    draws = drawn(DA5(), rng, config, 1, 100)
    planes = {draw["quarter_turns"][1] for draw in draws if draw["quarter_turns"]}
    assert planes == ({axes} if axes else set())
    orders = {draw["transposition"] for draw in draws if draw["transposition"]}
    assert all([patch[axis] for axis in order] == list(patch) for order in orders)
    assert bool(orders) == bool(axes)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_repeatable_and_of_the_networks_patch(kind):
    config = configuration(*KINDS[kind])
    batch = patches(config)
    first, second = DA5().augment(batch, config, 4), DA5().augment(batch, config, 4)
    for key in ("images", "label"):
        np.testing.assert_array_equal(first[key], second[key])
        assert first[key].dtype == batch[key].dtype
        assert first[key].shape == (2, batch[key].shape[1], *config.patch_size)
    assert first["label"].min() >= 0
    assert np.isfinite(first["images"]).all()


def test_generator_patch_fits_the_smallest_scale():
    assert DA5().generator_patch_size(configuration((128, 128, 128))) == (249, 249, 249)
    assert DA5().generator_patch_size(configuration((512, 256))) == (731, 731)
