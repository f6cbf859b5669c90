"""Convolutions of single volumes: oneDNN computes them, and what they return is the same."""

import copy

import pytest
import torch
from small_training import isotropic
from torch import nn
from torch.profiler import ProfilerActivity, profile

from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.networks.cpu import single
from nnunet_builtin.networks.placing import placed
from nnunet_builtin.networks.plain_unet import PlainUNet

RUNTIME = ResolvedRuntime(torch.device("cpu"), torch.float32, 1, 0)


def ordered(*shape):
    return torch.randn(*shape).to(memory_format=torch.channels_last_3d)


def general_routines(call):
    """Return how often PyTorch's general routines convolve, and what the call returns."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        found = call()
    slow = {"aten::slow_conv3d_forward", "aten::slow_conv_transpose3d"}
    return sum(event.count for event in seen.key_averages() if event.key in slow), found


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_a_single_volume_is_computed_by_onednn(layout):
    torch.manual_seed(0)
    network = PlainUNet(layout=layout).build(isotropic(3, 3, base_features=8)).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)  # zeros would hide where they are used
    network.deep_supervision = False
    fast, images = placed(copy.deepcopy(network), RUNTIME, 3), ordered(1, 1, 16, 24, 16)
    with torch.inference_mode():
        slow, expected = general_routines(lambda: network(images))
        left, found = general_routines(lambda: fast(images))
    assert (slow > 10, left) == (True, 1), "all but the head, a kernel of one voxel"
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_convolution_is_a_product_of_matrices(bias):
    plain = nn.ConvTranspose3d(5, 3, (1, 2, 3), (1, 2, 3), bias=bias)
    fast, features = copy.deepcopy(plain), ordered(1, 5, 4, 3, 2)
    fast.__class__ = single.ConvTranspose3d
    with torch.inference_mode():
        slow, found = general_routines(lambda: fast(features))
        torch.testing.assert_close(found, plain(features))
    assert slow == 0
    beside = torch.cat([found, ordered(1, 2, *found.shape[2:])], dim=1)
    assert beside.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    "options",
    [{"groups": 2}, {"padding_mode": "reflect"}, {"padding": "same"}, {"kernel_size": 1}],
    ids=str,
)
def test_other_convolutions_stay_as_they_are(options):
    conv = nn.Conv3d(4, 4, **{"kernel_size": 3, "padding": 1, **options})
    assert not single.is_possible(conv, RUNTIME)


def test_gradients_and_other_precisions_are_left_to_pytorch():
    conv, features = nn.Conv3d(4, 4, 3), ordered(1, 4, 8, 8, 8)
    assert not single.is_missed(features)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert not single.is_missed(features)
    with torch.inference_mode():
        assert single.is_missed(features)
    halves = ResolvedRuntime(torch.device("cpu"), torch.bfloat16, 1, 0)
    assert not single.is_possible(conv, halves)
