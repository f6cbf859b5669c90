"""The registered augmentations: each builds with its settings, and does what its name says."""

import numpy as np
import pytest
from augmentation_samples import KINDS, configuration, drawn

from nnunet_builtin.plugin import nnunet_augmentations
from nnunet_core.registry.discovery import Resolved
from nnunet_core.registry.settings import build

COMPONENTS = {component.name: component for component in nnunet_augmentations()}


def built(name):
    return build(Resolved("augmentation", f"builtin/{name}", COMPONENTS[name]))


def cut(augmentation, config, seed=0):
    rng, size = np.random.default_rng(seed), augmentation.generator_patch_size(config)
    images = rng.normal(size=(2, 2, *size)).astype(np.float32)
    return {"images": images, "label": rng.integers(-1, 3, (2, 1, *size), np.int16)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_every_augmentation_makes_repeatable_batches_of_the_patch(name, kind):
    config, augmentation = configuration(*KINDS[kind]), built(name)
    batch = cut(augmentation, config)
    first, second = augmentation.augment(batch, config, 1), built(name).augment(batch, config, 1)
    for key in batch:
        assert first[key].shape == (2, batch[key].shape[1], *config.patch_size)
        assert first[key].dtype == batch[key].dtype
        np.testing.assert_array_equal(first[key], second[key])
    assert first["label"].min() == 0


def test_mirroring_alone_moves_values_and_changes_none():
    config, augmentation = configuration(), built("mirror_only")
    assert augmentation.generator_patch_size(config) == config.patch_size
    batch = cut(augmentation, config)
    found = [augmentation.augment(batch, config, seed)["images"] for seed in range(60)]
    for images in found:
        np.testing.assert_array_equal(
            np.sort(images[0, 0], axis=None), np.sort(batch["images"][0, 0], axis=None)
        )
    assert len({images[0].tobytes() for images in found}) == 8


def test_light_leaves_out_what_blurs_and_disturbs():
    rng, augmentation, config = np.random.default_rng(0), built("light"), configuration()
    draws = drawn(augmentation, rng, config, 2, 500)
    off = ("noise", "blur", "low_resolution")
    assert not any(draw[name] is not None for draw in draws for name in off)
    motions = [draw["spatial"] for draw in draws]
    assert not any(motion.elastic for motion in motions)
    assert max(abs(np.degrees(motion.angles)).max() for motion in motions if motion.angles) <= 10
    assert {bool(draw["mirror"]) for draw in draws} == {True, False}


def test_insane_has_the_numbers_of_v1s_da3():
    """Its three decimals are those of v1's trainer; the steps that it shares with `v2` are tested
    there.
    """
    rng, augmentation, config = np.random.default_rng(0), built("insane"), configuration((24, 12))
    draws = drawn(augmentation, rng, config, 2, 3000)
    motions = [draw["spatial"] for draw in draws]
    for name in ("angles", "scale", "elastic"):
        share = np.mean([getattr(motion, name) is not None for motion in motions])
        assert share == pytest.approx(0.3, abs=0.03), name
    assert np.mean([draw["noise"] is not None for draw in draws]) == pytest.approx(0.15, abs=0.03)
    ranges = {
        "contrast": (0.65, 1.5),
        "brightness": (0.7, 1.3),
        "gamma": (0.5, 1.6),
        "inverted_gamma": (0.5, 1.6),
        "blur": (0.5, 1.5),
    }
    for name, limits in ranges.items():
        values = [value for draw in draws for value in (draw[name] or {}).values()]
        assert (min(values), max(values)) == pytest.approx(limits, abs=0.02), name
    scales = [motion.scale for motion in motions if motion.scale]
    assert np.mean([isinstance(s, tuple) for s in scales]) == pytest.approx(0.3, abs=0.05)
    assert max(abs(m.angles[0]) for m in motions if m.angles) > np.radians(170)
    shifts = [len(draw["additive_brightness"] or {}) for draw in draws]
    assert np.mean(shifts) == pytest.approx(0.6, abs=0.05)
    assert augmentation.generator_patch_size(configuration((128, 128, 128))) == (249, 249, 249)
