"""Upsampling and convolution in one: the values and gradients of the two steps, and where it is
used.
"""

import pytest
import torch
from torch import nn

from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.networks.cpu.coarse import is_worthwhile, upsampled_convolution
from nnunet_builtin.networks.placing import placed
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_core.data.plans import NetworkSpec

LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def layers(dimensions, inputs=6, middle=4, outputs=3, kernel=3, stride=2):
    up = TRANSPOSED[dimensions](inputs, middle, stride, stride, bias=False)
    conv = CONVOLUTION[dimensions](2 * middle, outputs, kernel, padding=kernel // 2)
    return up.double(), conv.double()


def features(channels, size):
    values = torch.randn(2, channels, *size, dtype=torch.float64)
    return values.contiguous(memory_format=LAYOUT[len(size)]).requires_grad_()


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 3), (5, 7, 4), (1, 1), (6, 9)])
def test_values_and_gradients_are_those_of_the_two_steps(size):
    torch.manual_seed(0)
    up, conv = layers(len(size))
    coarse, skip = features(6, size), features(4, [2 * n for n in size])
    expected = conv(torch.cat([up(coarse), skip], dim=1))
    result = upsampled_convolution(up, conv, coarse, skip)
    torch.testing.assert_close(result, expected)
    inputs, gradient = [coarse, skip, up.weight, conv.weight, conv.bias], torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad(result, inputs, gradient),
        torch.autograd.grad(expected, inputs, gradient),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_a_prediction_before_a_training_does_no_harm():
    up, conv = layers(2)
    coarse, skip = features(6, (4, 4)), features(4, (8, 8))
    with torch.inference_mode():
        upsampled_convolution(up, conv, coarse, skip)
    upsampled_convolution(up, conv, coarse, skip).sum().backward()


def test_it_is_used_on_large_grids_in_channels_last_order_alone():
    up, conv = layers(3)
    large, small = features(6, (8, 8, 8)), features(6, (2, 4, 4))
    assert is_worthwhile(up, conv, large)
    assert not is_worthwhile(up, conv, small)
    assert not is_worthwhile(up, conv, large.contiguous())
    assert not is_worthwhile(up, conv, large.to("meta"))
    assert not is_worthwhile(*layers(3, kernel=1), large)
    assert not is_worthwhile(*layers(3, stride=(1, 2, 2)), large)


@pytest.mark.parametrize(("kernels", "strides"), [((3, 3, 3), (2, 2, 2)), ((1, 3, 3), (1, 2, 2))])
def test_a_network_computes_the_same_in_both_memory_orders(kernels, strides):
    torch.manual_seed(0)
    spec = NetworkSpec(
        dimensions=3,
        input_channels=1,
        output_channels=2,
        pool_kernels=(strides, (2, 2, 2)),
        conv_kernels=(kernels, (3, 3, 3), (3, 3, 3)),
        base_features=4,
    )
    network = PlainUNet().build(spec).double()
    images = torch.randn(2, 1, 16, 24, 16, dtype=torch.float64)
    expected = network(images)
    network = placed(network, ResolvedRuntime(torch.device("cpu"), torch.float32, 1, 0), 3)
    for found, wanted in zip(
        network(images.contiguous(memory_format=torch.channels_last_3d)), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted)
