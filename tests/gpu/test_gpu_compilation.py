"""A compiled network trains; where its compiler fails, one warning says so and that is all."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from listening import Listener
from small_on_card import CONFIGURATION, loop_of, losses_of, resolved_on, with_network

from nnunet_builtin.computing.computation import computing

pytestmark = pytest.mark.gpu

STEPS = 12
#: A compiler takes its time for every layer.
SHALLOW = with_network(
    CONFIGURATION,
    pool_kernels=((2, 2, 2),),
    conv_kernels=((3, 3, 3), (3, 3, 3)),
    convs_per_stage=1,
)


def trained(folder, device, compiled):
    """Train in the precision that the device is fast in; return weights, losses and warnings."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    runtime = replace(resolved_on(device, dtype), threads=2)  # some sizes need two to be compiled
    settings, report = {"compile": compiled, "iterations_per_epoch": STEPS}, Listener()
    with computing(runtime, deterministic=False):  # compilers look at what it sets
        loop = loop_of(folder, runtime, settings, configuration=SHALLOW, report=report)
        losses = losses_of(loop, STEPS)
    return loop.state.network.state_dict(), losses, report.warnings


@pytest.fixture
def plain(tmp_path, device):
    """The losses of the training without a compiler."""
    _, losses, warnings = trained(tmp_path / "plain", device, compiled=False)
    assert warnings == []
    return losses


@pytest.fixture
def compiler(device, tmp_path, monkeypatch):
    """What PyTorch compiles with, and no results of earlier compilations."""
    from torch.utils._triton import has_triton

    if not any(map(shutil.which, ("cc", "gcc", "c++", "g++"))):
        pytest.skip("no C++ compiler")
    if device.type == "cuda" and not has_triton():
        pytest.skip("no Triton")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()


def test_a_compiled_network_learns_what_the_plain_one_learns(tmp_path, device, compiler, plain):
    weights, losses, warnings = trained(tmp_path / "compiled", device, compiled=True)
    assert warnings == []
    assert losses[-3:].mean() < losses[:3].mean() - 0.2
    np.testing.assert_allclose(losses, plain, atol=0.05)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert not any("_orig_mod" in name for name in weights)


def fails_at_once(*_, **__):
    raise RuntimeError("no compiler for this card\nand a long story")


def fails_at_first_use(*_, **__):
    return fails_at_once


@pytest.mark.parametrize("broken", [fails_at_once, fails_at_first_use])
def test_a_compiler_that_fails_is_one_warning_and_nothing_else(
    tmp_path,
    device,
    monkeypatch,
    plain,
    broken,
):
    monkeypatch.setattr(torch, "compile", broken)
    _, losses, warnings = trained(tmp_path / "broken", device, compiled=True)
    reason = "the network cannot be compiled, it runs as it is: no compiler for this card"
    assert warnings == [reason]
    np.testing.assert_allclose(losses, plain, atol=0.01)
