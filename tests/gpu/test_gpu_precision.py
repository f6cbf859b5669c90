"""Trainings in mixed precision learn what a training in float32 learns; the scaler is kept."""

import numpy as np
import pytest
import torch
from small_on_card import CONFIGURATION, loop_of, losses_of, resolved_on

from nnunet_builtin.training.checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint

pytestmark = pytest.mark.gpu

STEPS = 50
SETTINGS = {"iterations_per_epoch": STEPS, "learning_rate": 0.005}
#: Of losses from 2.1 to 0.0. On a CPU bfloat16 is off by 0.0025 at most and float16 by 0.0005;
#: a rounding error grows in a training, so a card with other sums gets ten times as much.
CLOSE = 0.025
FIRST_SCALE = 2.0**16


def loop_in(folder, device, dtype):
    return loop_of(folder, resolved_on(device, dtype), SETTINGS, configuration=CONFIGURATION)


@pytest.fixture(scope="module")
def float32(tmp_path_factory, device):
    """The losses of a training in float32 on the device."""
    folder = tmp_path_factory.mktemp("float32") / "fold_0"
    return losses_of(loop_in(folder, device, torch.float32), STEPS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_losses_fall_as_in_float32(tmp_path, device, float32, dtype):
    loop = loop_in(tmp_path / "fold_0", device, dtype)
    losses = losses_of(loop, STEPS)
    assert losses.shape == float32.shape == (STEPS,)
    assert np.isfinite(losses).all()
    assert losses[-10:].mean() < losses[:10].mean() - 1
    np.testing.assert_allclose(losses, float32, atol=CLOSE, rtol=0)
    assert not np.array_equal(losses, float32)  # it was another precision
    assert loop.state.scaler.is_enabled() == (dtype == torch.float16)
    if dtype == torch.float16:
        assert loop.state.scaler.get_scale() == FIRST_SCALE  # no update was left out


def test_gradients_in_float16_are_scaled_back(tmp_path, device):
    """Every parameter has nearly the gradient of float32, though losses were multiplied."""
    norms = []
    for dtype in (torch.float16, torch.float32):
        loop = loop_in(tmp_path / "fold_0", device, dtype)
        losses_of(loop, 1)
        gradients = [parameter.grad for parameter in loop.state.network.parameters()]
        norms.append([float(each.norm()) for each in gradients if each is not None])
    half, full = np.array(norms)
    assert full.max() > 0.1
    np.testing.assert_allclose(half, full, rtol=0.05, atol=full.max() / 100)


def test_an_overflow_leaves_one_update_out_and_halves_the_scale(tmp_path, device):
    loop = loop_in(tmp_path / "fold_0", device, torch.float16)
    losses_of(loop, 1)
    before = [parameter.clone() for parameter in loop.state.network.parameters()]
    scaler = loop.state.scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**40})
    losses_of(loop, 1)
    assert scaler.get_scale() == 2.0**39
    pairs = zip(before, loop.state.network.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)


def test_the_scale_survives_a_checkpoint(tmp_path, device):
    folder = tmp_path / "fold_0"
    first = loop_in(folder, device, torch.float16)
    losses_of(first, 3)
    scaler = first.state.scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": 512.0})
    expected = scaler.state_dict()
    assert expected["_growth_tracker"] == 3
    write_checkpoint(folder, first.state.snapshot())
    assert read_checkpoint(folder / CHECKPOINT)["scaler"] == expected
    second = loop_in(folder, device, torch.float16)
    assert second.state.scaler.state_dict() == expected
    losses_of(second, 1)
    assert second.state.scaler.get_scale() == 512
