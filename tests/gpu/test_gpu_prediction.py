"""Probabilities of trained networks on a card are those of a CPU."""

from dataclasses import replace

import numpy as np
import pytest
import small_training as small
from small_on_card import runtime_on

from nnunet_builtin.inference import sliding_window
from nnunet_builtin.inference.sliding_window import SlidingWindow

pytestmark = pytest.mark.gpu

CLOSE = 1e-4
PLANES = small.isotropic(2, 2, output_channels=3, base_features=4)
CONFIGURATIONS = {
    "volumes": small.CONFIGURATION,
    "planes": small.CONFIGURATION.model_copy(update={"patch_size": (8, 12), "network": PLANES}),
}


def predicted(model, images, runtime):
    return SlidingWindow().load(replace(model, runtime=runtime))(images).whole()


@pytest.mark.parametrize("declared", [small.CLASSES, small.REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("kind", CONFIGURATIONS)
@pytest.mark.usefixtures("exact")
def test_two_networks_and_mirrors_give_the_probabilities_of_a_cpu(tmp_path, device, kind, declared):
    model = small.make_model(tmp_path, declared, CONFIGURATIONS[kind])
    images = np.random.default_rng(0).normal(size=(1, 11, 19, 14)).astype(np.float32)
    expected = predicted(model, images, runtime_on("cpu"))
    found = predicted(model, images, runtime_on(device))
    assert found.shape == (model.labels.outputs, *images.shape[1:])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=CLOSE)
    assert expected.std() > 0.02  # the weights say something


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_the_number_of_tiles_in_a_pass_changes_nothing(tmp_path, device, exact, monkeypatch, kind):
    model = small.make_model(tmp_path, small.CLASSES, CONFIGURATIONS[kind], folds=1)
    images = np.random.default_rng(0).normal(size=(1, 9, 19, 14)).astype(np.float32)
    together = predicted(model, images, runtime_on(device))
    monkeypatch.setitem(sliding_window.VOXELS_PER_PASS, device.type, 1)
    alone = predicted(model, images, runtime_on(device))
    np.testing.assert_allclose(alone, together, atol=CLOSE)


def test_mixed_precision_gives_nearly_the_same_probabilities(tmp_path, device):
    """bfloat16 keeps 8 bits: logits of about 1 are off by some thousandths."""
    model = small.make_model(tmp_path)
    images = np.random.default_rng(0).normal(size=(1, 11, 19, 14)).astype(np.float32)
    expected = predicted(model, images, runtime_on("cpu"))
    for precision in ("auto", "bfloat16"):
        found = predicted(model, images, runtime_on(device, precision))
        assert np.abs(found - expected).mean() < 0.01
        assert np.isfinite(found).all()
