"""Augmentation: batchgenerators' own numbers for fixed draws, v1's label rules, frequencies,
seeds.
"""

import random

import numpy as np
import pytest
from augmentation_samples import (
    KINDS,
    PLANE,
    THICK,
    VOLUME,
    applied,
    configuration,
    drawn,
    patches,
    sample,
)
from batchgenerators.augmentations import color_augmentations as color
from batchgenerators.augmentations.noise_augmentations import augment_gaussian_blur
from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy
from batchgenerators.augmentations.spatial_transformations import augment_mirroring, augment_spatial
from batchgenerators.augmentations.utils import (
    create_zero_centered_coordinate_mesh,
    elastic_deform_coordinates,
    elastic_deform_coordinates_2,
    interpolate_img,
    rotate_coords_2d,
    rotate_coords_3d,
    scale_coords,
)
from scipy import ndimage

from nnunet_builtin.augmentation.spatial import Elastic, Motion
from nnunet_builtin.augmentation.v2 import AugmentationV2, NoAugmentation
from nnunet_core.errors import SettingsError, UsageError
from nnunet_core.registry.components import Component
from nnunet_core.registry.discovery import Resolved
from nnunet_core.registry.settings import build

ANGLES = {"volume": (0.3, -0.4, 0.2), "dummy 2D": (1.9,), "plane": (-2.2,)}


def folded(array, kind):
    """Return slices as channels where v1 augments in plane."""
    return array.reshape(1, -1, *array.shape[-2:]) if kind == "dummy 2D" else array[None]


def coordinates(size, patch, angles, scale) -> np.ndarray:
    """Return where the voxels of a patch lie in the generator patch, by batchgenerators."""
    mesh = create_zero_centered_coordinate_mesh(patch)
    if angles:
        mesh = (
            rotate_coords_3d(mesh, *angles) if len(angles) == 3 else rotate_coords_2d(mesh, *angles)
        )
    return mesh * scale + (np.array(size) / 2 - 0.5).reshape(-1, *(1,) * len(size))


def specified_label(label, points) -> np.ndarray:
    """Return v1's label of one channel: 0/1 masks, linear, -1 outside, ascending where at least
    0.5.
    """
    result = np.zeros(points.shape[1:], label.dtype)
    for value in np.unique(label):
        mask = ndimage.map_coordinates(
            (label == value).astype(float), points, order=1, mode="constant", cval=-1
        )
        result[mask >= 0.5] = value
    return result


@pytest.fixture
def lowest(monkeypatch):
    """Let batchgenerators draw the lower end of every range."""
    monkeypatch.setattr(np.random, "random", lambda: 0.0)
    monkeypatch.setattr(np.random, "uniform", lambda low=0.0, high=1.0, size=None: low)


@pytest.mark.parametrize(
    ("patch", "dummy_2d", "degrees", "expected"),
    [
        ((128, 128, 128), False, None, (205, 205, 205)),
        ((40, 56, 40), False, None, (73, 80, 64)),
        ((64, 192, 160), False, None, (178, 289, 200)),
        ((320, 256), False, None, (376, 376)),
        ((224, 224), False, None, (263, 263)),
        ((512, 512), False, None, (602, 602)),
        ((56, 40), False, None, (65, 65)),
        ((512, 256), False, None, (659, 301)),
        ((320, 256), False, 90, (376, 376)),
        ((20, 320, 256), True, None, (20, 376, 376)),
        ((20, 512, 256), True, None, (20, 602, 602)),
    ],
)
def test_generator_patch_size(patch, dummy_2d, degrees, expected):
    augmentation = AugmentationV2(rotation_degrees=degrees)
    assert augmentation.generator_patch_size(configuration(patch, dummy_2d)) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rotated", "scale"), [(True, None), (True, 0.8), (True, 1.4), (False, 0.7), (False, 1.3)]
)
def test_spatial_transform_is_that_of_batchgenerators(kind, rotated, scale, lowest):
    config = configuration(*KINDS[kind])
    images, label = sample(config)
    angles = ANGLES[kind] if rotated else None
    found, found_label = applied(images, label, config, spatial=Motion(angles, scale))
    axes = 2 if kind != "volume" else 3
    limits = {
        f"angle_{axis}": (angle, 4.0) for axis, angle in zip("xyz", angles or (), strict=False)
    }
    expected, _ = augment_spatial(
        folded(images, kind),
        None,
        config.patch_size[-axes:],
        do_elastic_deform=False,
        do_rotation=rotated,
        do_scale=scale is not None,
        scale=(scale or 1, 2.0),
        border_mode_data="constant",
        order_data=3,
        random_crop=False,
        **limits,
    )
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-4)
    points = coordinates(images.shape[-axes:], config.patch_size[-axes:], angles, scale or 1)
    for channel, found_channel in zip(
        folded(label, kind)[0], folded(found_label, kind)[0], strict=True
    ):
        np.testing.assert_array_equal(
            found_channel, np.maximum(specified_label(channel, points), 0)
        )


def test_larger_label_wins_a_tie():
    config = configuration((5, 5), use_mask=(False,))
    label = np.array([[0, 2, 1, 3, 3, -1]] * 6, np.int16)[None]
    _, found = applied(np.zeros((1, 6, 6), np.float32), label, config, spatial=Motion(scale=1.0))
    np.testing.assert_array_equal(found[0], [[2, 2, 3, 3, 3]] * 5)


def test_no_label_has_half_of_the_weights():
    config = configuration((1, 1), use_mask=(False,))
    label = np.array([[[1, 2], [3, 4]]], np.int16)
    _, found = applied(np.zeros((1, 2, 2), np.float32), label, config, spatial=Motion(scale=1.0))
    assert found.item() == 0


def test_what_is_rotated_in_is_background_and_not_outside():
    """Step 13 masks where the label is -1, before it becomes 0: noise stays in the corners, but not
    there.
    """
    config = configuration(PLANE, use_mask=(True,))
    size = AugmentationV2().generator_patch_size(config)
    images, label = np.full((1, *size), 7, np.float32), np.full((1, *size), 3, np.int16)
    label[:, 15:30, 15:30] = -1
    noise = np.full((1, *PLANE), 0.25, np.float32)
    found, found_label = applied(images, label, config, spatial=Motion(scale=1.4), noise=noise)
    assert found[0, 0, 0] == 0.25
    assert found_label[0, 0, 0] == 0
    assert found[0, 20, 16] == 0
    assert found_label[0, 20, 16] == 0
    assert found[0, 20, 6] == pytest.approx(7.25, abs=1e-5)
    assert found_label[0, 20, 6] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_without_rotation_and_scaling_the_centre_is_cut(kind):
    config = configuration(*KINDS[kind])
    images, label = sample(config)
    starts = [
        (old - new) // 2 for old, new in zip(images.shape[1:], config.patch_size, strict=True)
    ]
    window = (..., *(slice(s, s + n) for s, n in zip(starts, config.patch_size, strict=True)))
    found, found_label = applied(images, label, config)
    np.testing.assert_array_equal(found, images[window])
    np.testing.assert_array_equal(found_label, np.maximum(label[window], 0))


def centre(config) -> np.ndarray:
    return applied(*sample(config), config)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zoom", [0.5, 0.63, 0.8, 0.99])
def test_low_resolution_is_that_of_batchgenerators(kind, zoom):
    config = configuration(*KINDS[kind])
    expected = augment_linear_downsampling_scipy(
        centre(config),
        zoom_range=(zoom, zoom),
        order_downsample=0,
        order_upsample=3,
        ignore_axes=(0,) if kind == "dummy 2D" else None,
    )
    found, _ = applied(*sample(config), config, low_resolution={0: zoom, 1: zoom})
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.3])
def test_intensity_steps_are_those_of_batchgenerators(factor, lowest):
    config = configuration()
    limits = (factor, 2.0) if factor < 1 else (factor, factor)
    steps = {
        "brightness": lambda x: color.augment_brightness_multiplicative(x, limits),
        "contrast": lambda x: color.augment_contrast(x, limits),
        "inverted_gamma": lambda x: color.augment_gamma(
            x, limits, True, per_channel=True, retain_stats=True
        ),
        "gamma": lambda x: color.augment_gamma(
            x, limits, False, per_channel=True, retain_stats=True
        ),
        "blur": lambda x: augment_gaussian_blur(x, (factor, factor)),
    }
    for name, step in steps.items():
        found, _ = applied(*sample(config), config, **{name: {0: factor, 1: factor}})
        np.testing.assert_allclose(found, step(centre(config)), atol=1e-4, err_msg=name)
        one, _ = applied(*sample(config), config, **{name: {1: factor}})
        np.testing.assert_array_equal(one, [centre(config)[0], found[1]], err_msg=name)


def test_steps_follow_each_other_in_v1s_order(lowest):
    config = configuration(*KINDS["dummy 2D"])
    every = {0: 0.8, 1: 0.8}
    noise = np.random.default_rng(0).normal(size=(2, *THICK)).astype(np.float32)
    channelwise = ("blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma")
    steps = {"noise": noise, **dict.fromkeys(channelwise, every), "mirror": (0, 2)}
    expected = augment_gaussian_blur(centre(config) + noise, (0.8, 0.8))
    expected = color.augment_contrast(
        color.augment_brightness_multiplicative(expected, (0.8, 2)), (0.8, 2)
    )
    expected = augment_linear_downsampling_scipy(
        expected, (0.8, 0.8), order_downsample=0, order_upsample=3, ignore_axes=(0,)
    )
    for inverted in (True, False):
        expected = color.augment_gamma(
            expected, (0.8, 2), inverted, per_channel=True, retain_stats=True
        )
    expected, expected_label = augment_mirroring(
        expected, applied(*sample(config), config)[1], axes=(0, 2)
    )
    found, found_label = applied(*sample(config), config, **steps)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(found_label, expected_label)


def test_masked_channels_are_zero_outside_after_all_steps():
    config = configuration(use_mask=(True, False))
    images, label = sample(config)
    noise = np.full((2, *VOLUME), 3, np.float32)
    found, found_label = applied(
        images, label, config, noise=noise, brightness={0: 2.0, 1: 2.0}, mirror=(1,)
    )
    window = (
        ...,
        *(
            slice((g - n) // 2, (g - n) // 2 + n)
            for g, n in zip(images.shape[1:], VOLUME, strict=True)
        ),
    )
    outside = label[window][0, :, ::-1] == -1
    assert outside.any()
    assert (found[0][outside] == 0).all()
    assert (found[1][outside] != 0).all()
    assert (found[0][~outside] != 0).all()
    assert found_label.min() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_batches_and_touch_nothing_else(kind):
    config = configuration(*KINDS[kind])
    augmentation = AugmentationV2(noise_probability=1, mirror_probability=1)
    batch = patches(config)
    before = {key: np.copy(batch[key]) for key in ("images", "label")}
    state, own_state = random.getstate(), np.random.get_state()[1].copy()
    first, second, other = (augmentation.augment(batch, config, seed) for seed in (5, 5, 6))
    for key in ("images", "label"):
        np.testing.assert_array_equal(first[key], second[key])
        np.testing.assert_array_equal(batch[key], before[key])
        assert first[key].dtype == batch[key].dtype
        assert first[key].shape == (2, batch[key].shape[1], *config.patch_size)
    assert not np.array_equal(first["images"], other["images"])
    assert first["names"] == ["a", "b"]
    assert random.getstate() == state
    np.testing.assert_array_equal(np.random.get_state()[1], own_state)


def test_draws_have_v1s_frequencies_and_ranges():
    rng, augmentation, config = np.random.default_rng(0), AugmentationV2(), configuration((4, 4, 4))
    draws = drawn(augmentation, rng, config, 2, 4000)
    shares = {
        "noise": 0.1,
        "brightness": 0.15,
        "contrast": 0.15,
        "inverted_gamma": 0.1,
        "gamma": 0.3,
    }
    for name, share in shares.items():
        assert abs(np.mean([draw[name] is not None for draw in draws]) - share) < 0.03, name
    for name in ("angles", "scale"):
        happened = [getattr(draw["spatial"], name) is not None for draw in draws]
        assert abs(np.mean(happened) - 0.2) < 0.03, name
    for name, share in {"blur": 0.2 * 0.5, "low_resolution": 0.25 * 0.5}.items():
        values = [draw[name] or {} for draw in draws]
        assert abs(np.mean([0 in value for value in values]) - share) < 0.02, name
        assert abs(np.mean([value != {} for value in values]) - 1.5 * share) < 0.02, name
    for axis in range(3):
        assert abs(np.mean([axis in (draw["mirror"] or ()) for draw in draws]) - 0.5) < 0.03
    for name in ("gamma", "contrast", "brightness"):
        assert {len(draw[name] or {}) for draw in draws} == {0, 2}


@pytest.mark.parametrize(
    ("name", "low", "high", "two_sided"),
    [
        ("blur", 0.5, 1, False),
        ("brightness", 0.75, 1.25, False),
        ("contrast", 0.75, 1.25, True),
        ("low_resolution", 0.5, 1, False),
        ("inverted_gamma", 0.7, 1.5, True),
        ("gamma", 0.7, 1.5, True),
    ],
)
def test_ranges_of_channel_values(name, low, high, two_sided):
    rng, config = np.random.default_rng(0), configuration((4, 4, 4))
    augmentation = AugmentationV2(
        blur_probability=1,
        brightness_probability=1,
        contrast_probability=1,
        low_resolution_probability=1,
        inverted_gamma_probability=1,
        gamma_probability=1,
    )
    draws = drawn(augmentation, rng, config, 2, 2000)
    values = np.array([value for draw in draws for value in (draw[name] or {}).values()])
    assert low <= values.min() < low + 0.01
    assert high - 0.01 < values.max() <= high
    below = np.mean(values < 1) if two_sided else np.mean(values < (low + high) / 2)
    assert abs(below - 0.5) < 0.04


def test_ranges_of_sample_values():
    rng, augmentation = np.random.default_rng(0), AugmentationV2(1, None, 1, noise_probability=1)
    for patch, dummy_2d, degrees in [
        ((9, 9, 9), False, 30),
        ((2, 9, 9), True, 180),
        ((9, 9), False, 180),
        ((16, 9), False, 15),
    ]:
        draws = drawn(augmentation, rng, configuration(patch, dummy_2d), 1, 500)
        angles = np.degrees([draw["spatial"].angles for draw in draws])
        assert angles.shape[1] == (1 if dummy_2d or len(patch) == 2 else 3)
        assert degrees * 0.97 < angles.max() <= degrees
        assert -degrees <= angles.min() < -degrees * 0.97
    scales = np.array([draw["spatial"].scale for draw in draws])
    assert 0.7 <= scales.min() < 0.71
    assert 1.39 < scales.max() <= 1.4
    assert abs(np.mean(scales < 1) - 0.5) < 0.07
    deviations = np.array([draw["noise"].std() for draw in draws])
    assert 0.09 < deviations.max() < 0.12
    assert abs(np.mean(deviations) - 0.05) < 0.005


def test_settings_are_v1s_unless_set():
    config, batch = configuration(), patches(configuration())
    quiet = dict.fromkeys(
        (name for name in vars(AugmentationV2()) if name.endswith("_probability")), 0.0
    )
    found = AugmentationV2(**quiet).augment(batch, config, 0)
    np.testing.assert_array_equal(found["images"][0], centre(config))
    mirrored = AugmentationV2(**{**quiet, "mirror_probability": 1, "mirror_axes": (2,)}).augment(
        batch, config, 0
    )
    np.testing.assert_array_equal(mirrored["images"][0], centre(config)[..., ::-1])


def test_wrong_settings_are_errors():
    def built(**settings):
        component = Component("v2", "nnunet_builtin.augmentation.v2:AugmentationV2", "", settings)
        return build(Resolved("augmentation", "builtin/v2", component))

    assert built(gamma_range=[0.5, 2], mirror_axes=[0, 1], rotation_degrees=10).gamma_range == (
        0.5,
        2,
    )
    for settings in (
        {"gamma_range": [2, 0.5]},
        {"blur_probability": 2},
        {"mirror_axes": [3]},
        {"scale_range": [0, 1]},
    ):
        with pytest.raises(SettingsError, match=next(iter(settings))):
            built(**settings)
    config = configuration(PLANE)
    with pytest.raises(UsageError, match="mirror_axes"):
        AugmentationV2(mirror_axes=(0, 2)).augment(patches(config), config, 0)
    with pytest.raises(UsageError, match="each once"):
        AugmentationV2(mirror_axes=(1, 1)).mirrored_axes(config)


def test_what_is_never_mirrored_is_not_averaged_over():
    assert AugmentationV2(mirror_probability=0).mirrored_axes(configuration()) == ()
    assert AugmentationV2(mirror_probability=0.1).mirrored_axes(configuration()) == (0, 1, 2)


def test_no_augmentation():
    config = configuration()
    assert NoAugmentation().generator_patch_size(config) == VOLUME
    batch = patches(config)
    found = NoAugmentation().augment(batch, config, 0)
    np.testing.assert_array_equal(found["images"], batch["images"])
    np.testing.assert_array_equal(found["label"], np.maximum(batch["label"], 0))
    assert batch["label"].min() == -1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("elastic", "angles", "scale"),
    [
        ("patch", False, None),
        ("patch", True, 0.8),
        (None, True, "each"),
        ("voxels", False, None),
        ("voxels", True, 0.8),
    ],
)
def test_deformation_and_scales_per_axis_are_those_of_batchgenerators(
    kind, elastic, angles, scale, monkeypatch
):
    config = configuration(*KINDS[kind])
    images, label = sample(config)
    axes = 2 if kind != "volume" else 3
    patch = config.patch_size[-axes:]
    scale = (0.7, 1.3, 0.9)[:axes] if scale == "each" else scale
    noise = np.random.default_rng(1).random((axes, *patch), np.float32) * 2 - 1
    deformations = {
        None: None,
        "patch": Elastic(noise, tuple(0.12 * n for n in patch), (1.5, 0.8, 2.0)[:axes]),
        "voxels": Elastic(noise, (1.7,) * axes, factor=4.0),
    }
    deformation = deformations[elastic]
    mesh = create_zero_centered_coordinate_mesh(patch)
    if deformation:
        drawn = iter((noise.astype(float) + 1) / 2)
        monkeypatch.setattr(np.random, "random", lambda shape: next(drawn))
        if elastic == "patch":
            mesh = elastic_deform_coordinates_2(
                mesh, deformation.deviations, deformation.magnitudes
            )
        else:
            mesh = elastic_deform_coordinates(mesh, deformation.factor, deformation.deviations[0])
    if angles:
        turned = rotate_coords_3d if axes == 3 else rotate_coords_2d
        mesh = turned(mesh, *ANGLES[kind])
    mesh = scale_coords(mesh, scale or 1)
    if elastic != "voxels":
        mesh -= mesh.mean(axis=tuple(range(1, mesh.ndim)), keepdims=True)
    mesh += (np.array(images.shape[-axes:]) / 2 - 0.5).reshape(-1, *(1,) * axes)
    motion = Motion(ANGLES[kind] if angles else None, scale, deformation)
    found, found_label = applied(images, label, config, spatial=motion)
    for new, old in zip(folded(found, kind)[0], folded(images, kind)[0], strict=True):
        np.testing.assert_allclose(new, interpolate_img(old, mesh, 3, "constant", 0), atol=1e-3)
    for new, old in zip(folded(found_label, kind)[0], folded(label, kind)[0], strict=True):
        assert np.mean(new != np.maximum(specified_label(old, mesh), 0)) < 1e-3


def test_additive_brightness_may_come_before_or_after_the_steps_around_it():
    """v1 has it before the contrast, its stronger variants have it between the gamma steps."""
    config, both = configuration(), {0: 0.8, 1: 0.7}
    steps = {"contrast": both, "low_resolution": both, "inverted_gamma": both}
    shift = {0: 0.4, 1: -0.2}
    shifted, _ = applied(*sample(config), config, additive_brightness=shift, **steps)
    plain, _ = applied(*sample(config), config, **steps)
    np.testing.assert_allclose(
        shifted, plain + np.array([0.4, -0.2]).reshape(2, 1, 1, 1), atol=1e-4
    )


def test_draws_of_a_deformation_in_voxels():
    settings = {"elastic_probability": 0.2, "elastic_alpha": (0, 900), "elastic_sigma": (9, 13)}
    rng, config = np.random.default_rng(0), configuration((8, 12, 16))
    draws = drawn(AugmentationV2(**settings), rng, config, 2, 2000)
    fields = [draw["spatial"].elastic for draw in draws]
    assert np.mean([field is not None for field in fields]) == pytest.approx(0.2, abs=0.03)
    factors = np.array([field.factor for field in fields if field])
    sigmas = np.array([field.deviations for field in fields if field])
    assert (sigmas == sigmas[:, :1]).all()
    for values, (low, high) in ((factors, (0, 900)), (sigmas, (9, 13))):
        assert values.mean() == pytest.approx((low + high) / 2, rel=0.06)
        assert low <= values.min()
        assert values.max() <= high


def test_draws_of_the_steps_that_are_off_by_default():
    on = {
        "rotation_axis_probability": 0.5,
        "independent_scale_probability": 0.3,
        "elastic_probability": 0.3,
    }
    rng, config = np.random.default_rng(0), configuration((8, 12, 16))
    shifts = {"additive_brightness_probability": 0.4, "additive_brightness_deviation": 0.2}
    everything = drawn(AugmentationV2(1, None, 1, **on, **shifts), rng, config, 2, 2000)
    draws = [draw["spatial"] for draw in everything]
    assert np.mean([np.count_nonzero(d.angles) / 3 for d in draws]) == pytest.approx(0.5, abs=0.03)
    factors = [d.scale for d in draws if isinstance(d.scale, tuple)]
    assert len(factors) / 2000 == pytest.approx(0.3, abs=0.03)
    assert np.mean(np.array(factors) < 1) == pytest.approx(0.5, abs=0.04)
    fields = [d.elastic for d in draws if d.elastic]
    assert len(fields) / 2000 == pytest.approx(0.3, abs=0.03)
    smoothness = np.array([f.deviations for f in fields]) / config.patch_size
    np.testing.assert_allclose(smoothness, smoothness[:, :1].repeat(3, axis=1))
    assert smoothness.mean() == pytest.approx(0.125, abs=0.01)
    share = np.array([f.magnitudes for f in fields]) / np.array([f.deviations for f in fields])
    assert share.min() == pytest.approx(1 / 8, abs=0.01)
    assert share.max() == pytest.approx(1 / 2, abs=0.01)
    values = np.array([v for d in everything for v in (d["additive_brightness"] or {}).values()])
    assert len(values) / 4000 == pytest.approx(0.4 * 0.5, abs=0.02)
    assert (values.mean(), values.std()) == (
        pytest.approx(0, abs=0.02),
        pytest.approx(0.2, abs=0.02),
    )
