"""An augmentation is an ordered tuple of steps: settings order and extend it; further arrays move
along.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from augmentation_samples import KINDS, configuration, patches, sample, whole

from nnunet_builtin.augmentation.da5 import DA5
from nnunet_builtin.augmentation.v2 import AugmentationV2
from nnunet_core.contracts.augmentation import Step
from nnunet_core.errors import PluginError, SettingsError, UsageError
from nnunet_core.registry.components import Component
from nnunet_core.registry.discovery import Resolved
from nnunet_core.registry.settings import build

RICIAN = "batchgenerators.transforms.noise_transforms:RicianNoiseTransform"
ADD = f"{__name__}:Add"


@dataclass(frozen=True)
class Add(Step):
    """A step of somebody else."""

    amount: float = 1.0

    def draw(self, rng, sample):
        return self.amount

    def apply(self, sample, decision):
        return replace(sample, images=sample.images + decision)


def built(**settings):
    component = Component("v2", "nnunet_builtin.augmentation.v2:AugmentationV2", "", settings)
    return build(Resolved("augmentation", "builtin/v2", component))


def names(augmentation):
    return [name for name, _ in augmentation.ordered]


def test_the_default_order_is_that_of_v1():
    first = ["spatial", "noise", "blur", "brightness", "additive_brightness", "contrast"]
    second = ["low_resolution", "inverted_gamma", "gamma", "mirror", "mask"]
    assert names(AugmentationV2()) == [*first, *second, "cascade_operator", "cascade_removal"]


def test_every_setting_reaches_a_step():
    changed = {"mirror_axes": (1,), "rotation_degrees": 7.0, "elastic_alpha": (1.0, 2.0)}
    for kind in (AugmentationV2, DA5):
        plain = repr(kind().default_steps())
        for field in fields(kind):
            if field.name in ("steps", "extra_steps"):
                continue
            value = getattr(kind(), field.name)
            if field.name in changed:
                other = changed[field.name]
            else:
                other = (value[0], value[1] + 1) if isinstance(value, tuple) else value * 0.5 + 0.03
            assert repr(kind(**{field.name: other}).default_steps()) != plain, field.name


def test_settings_order_steps_and_leave_some_out():
    augmentation = built(steps=["spatial", "gamma", "noise", "mirror"])
    assert names(augmentation) == ["spatial", "gamma", "noise", "mirror"]
    config = configuration()
    found = augmentation.augment(patches(config), config, 0)
    assert found["label"].min() == 0
    crop = {"rotation_degrees": 0, "generator_scale": 1.0}
    without = built(steps=["noise", "mirror"], noise_probability=0.0, **crop)
    assert without.generator_patch_size(config) == config.patch_size
    assert built(steps=["spatial"]).mirrored_axes(config) == ()


def test_settings_add_steps_with_settings_of_their_own():
    quiet = {"steps": ["spatial"], "rotation_probability": 0.0, "scaling_probability": 0.0}
    config, batch = configuration(), patches(configuration())
    plain = built(**quiet).augment(batch, config, 0)["images"]
    more = built(**quiet, extra_steps={"start": [ADD], "spatial": [{ADD: {"amount": 2.5}}]})
    assert names(more) == [ADD, "spatial", ADD]
    np.testing.assert_allclose(more.augment(batch, config, 0)["images"], plain + 3.5, atol=1e-5)


def test_noise_after_rotation_is_noise_of_another_patch():
    """A step works on whatever patch reaches it."""
    config, batch = configuration(), patches(configuration())
    early = built(steps=["noise", "spatial"], noise_probability=1.0)
    assert early.augment(batch, config, 0)["images"].shape == (2, 2, *config.patch_size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": ["spatial", "nois"]}, "no step. Did you mean 'noise'.*Steps: spatial, noise"),
        ({"extra_steps": {"nois": [ADD]}}, "extra_steps has steps after 'nois'.*'noise'"),
        ({"steps": [{"noise": {"range": [0, 1]}}]}, "augmentation.noise_probability"),
        ({"steps": [{ADD: {}, "noise": {}}]}, "for one step"),
        ({"steps": [{ADD: {"amuont": 1}}]}, "no setting 'amuont'. Did you mean 'amount'"),
        ({"steps": [{ADD: {"amount": "x"}}]}, "amount"),
        ({"steps": ["json:JSONDecoder"]}, "no step. A step is a subclass of"),
        ({"steps": [{RICIAN: {"nose": 1}}]}, "Its settings: .*noise_variance"),
    ],
)
def test_wrong_steps_are_errors_that_say_what_there_is(settings, message):
    with pytest.raises(SettingsError, match=message):
        built(**settings).mirrored_axes(configuration())


def test_a_step_that_cannot_be_imported_is_an_error():
    with pytest.raises(PluginError, match=r"step 'nowhere:Flow'.*cannot be loaded"):
        built(steps=["nowhere:Flow"]).mirrored_axes(configuration())


def test_orders_that_cannot_work_are_errors():
    config = configuration()
    with pytest.raises(UsageError, match="Only one step may crop"):
        built(steps=["spatial", "noise", "spatial"]).generator_patch_size(config)
    with pytest.raises(UsageError, match=r"make patches of .* network takes \[18, 24, 20\]"):
        built(steps=["noise"]).augment(patches(config), config, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_further_arrays_move_like_images_and_like_labels(kind):
    config = configuration(*KINDS[kind])
    batch = patches(config)
    arrays = {
        "first": batch["images"][:, :1].copy(),
        "map": batch["label"].clip(0).astype(np.uint8),
    }
    more = {"arrays": arrays, "like": {"first": "image", "map": "label"}}
    spatial_only = {f"{name}_probability": 0.0 for name in ("noise", "blur", "brightness", "gamma")}
    off = ("contrast", "low_resolution", "inverted_gamma")
    spatial_only |= {f"{name}_probability": 0.0 for name in off}
    augmentation = AugmentationV2(
        1.0, scaling_probability=1.0, elastic_probability=0.5, **spatial_only
    )
    for seed in range(3):
        found = augmentation.augment({**batch, **more}, config, seed)
        np.testing.assert_array_equal(found["arrays"]["first"], found["images"][:, :1])
        np.testing.assert_array_equal(found["arrays"]["map"], found["label"])
        assert found["arrays"]["map"].dtype == np.uint8
        assert found["like"] == more["like"]
    noisy = AugmentationV2(noise_probability=1.0).augment({**batch, **more}, config, 0)
    plain = AugmentationV2(noise_probability=1.0).augment(batch, config, 0)
    np.testing.assert_array_equal(noisy["images"], plain["images"])
    assert not np.array_equal(noisy["arrays"]["first"], noisy["images"][:, :1])


def test_what_was_decided_can_be_replayed():
    config = configuration()
    augmentation, given = AugmentationV2(noise_probability=1.0), whole(config, *sample(config))
    done, decisions = augmentation.run(given, np.random.default_rng(3))
    assert [name for name, _ in decisions] == names(augmentation)
    again = augmentation.replay(given, dict(decisions))
    torch.testing.assert_close(again.images, done.images, rtol=0, atol=0)
