"""Convolutions by fewer products: the values and gradients of PyTorch's own, and where they are used."""

import pytest
import torch
from torch import nn

from nnunet_builtin import winograd
from nnunet_builtin.plain_unet import PlainUNet
from nnunet_builtin.winograd import convolve, is_worthwhile
from nnunet_core.plans import NetworkSpec

LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}


def layer(dimensions, inputs=3, outputs=2, kernel=3, stride=1, bias=True):
    torch.manual_seed(0)
    padding = [size // 2 for size in kernel] if isinstance(kernel, tuple) else kernel // 2
    return CONVOLUTION[dimensions](inputs, outputs, kernel, stride, padding, bias=bias).double()


def features(size, channels=3, dtype=torch.float64):
    values = torch.randn(2, channels, *size, dtype=dtype)
    return values.contiguous(memory_format=LAYOUT[len(size)]).requires_grad_()


def gradients(result, inputs):
    torch.manual_seed(1)
    return torch.autograd.grad(result, inputs, torch.randn(result.shape, dtype=result.dtype))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(6, 5, 4), (8, 1, 7), (10, 9)])
def test_values_and_gradients_are_those_of_the_convolution(size, bias):
    conv, images = layer(len(size), bias=bias), features(size)
    assert is_worthwhile(conv, images) or len(size) == 2 or size[1] == 1
    result, expected = winograd._Winograd.apply(images, conv.weight, conv.bias), conv(images)
    torch.testing.assert_close(result, expected)
    inputs = [images, *conv.parameters()]
    for found, wanted in zip(gradients(result, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(found, wanted)


def test_it_takes_other_weights_and_ways():
    conv, images, weight = layer(3), features((6, 6, 6)), torch.randn(2, 3, 3, 3, 3, dtype=torch.float64)
    expected = nn.functional.conv3d(images, weight, conv.bias, padding=1)
    torch.testing.assert_close(convolve(conv, images, weight), expected)
    torch.testing.assert_close(convolve(conv, images.contiguous(), weight), expected)
    strided = layer(3, stride=2)
    torch.testing.assert_close(convolve(strided, images), strided(images))


def test_it_is_used_in_training_on_large_grids_with_kernels_of_3_alone(monkeypatch):
    conv, images = layer(3), features((6, 6, 6))
    assert is_worthwhile(conv, images)
    with torch.no_grad():
        assert not is_worthwhile(conv, images)
    for others in (features((7, 6, 6)), features((4, 6, 6)), features((6, 2, 1)), images.detach(), images.contiguous()):
        assert not is_worthwhile(conv, others)
    assert not is_worthwhile(conv, images.to("meta"))
    assert not is_worthwhile(layer(3, kernel=(1, 3, 3)), images)
    assert not is_worthwhile(layer(3, stride=2), images)
    assert not is_worthwhile(conv, images.float())  # it would not compute in the precision of the features
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_worthwhile(conv, images)
        monkeypatch.setattr(winograd, "has_tile_products", lambda: False)
        assert is_worthwhile(conv, features((6, 6, 6), dtype=torch.bfloat16))
        monkeypatch.setattr(winograd, "has_tile_products", lambda: True)
        assert not is_worthwhile(conv, features((6, 6, 6), dtype=torch.bfloat16))


def test_rounding_stays_near_that_of_the_convolution_in_bfloat16():
    torch.manual_seed(0)
    conv, exact = nn.Conv3d(16, 16, 3, padding=1), features((8, 8, 8), 16, torch.float32)
    rounded = exact.detach().bfloat16().requires_grad_()
    expected = conv(exact)
    wanted = [expected, *gradients(expected, [exact, conv.weight, conv.bias])]
    with torch.autocast("cpu", torch.bfloat16):
        results = [conv(rounded), winograd._Winograd.apply(rounded, conv.weight, conv.bias)]
    errors = [
        [((a - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True)]
        for found in ([result, *gradients(result, [rounded, conv.weight, conv.bias])] for result in results)
    ]
    for plain, fast in zip(*errors, strict=True):
        assert fast < max(0.01, 4 * plain)
        assert fast < 0.02


def test_a_network_trains_with_it_and_predicts_without_it(monkeypatch):
    used = []
    own = winograd.is_worthwhile
    monkeypatch.setattr(winograd, "is_worthwhile", lambda *given: used.append(own(*given)) or used[-1])
    spec = NetworkSpec(
        dimensions=3,
        input_channels=1,
        output_channels=2,
        pool_kernels=((2, 2, 2),),
        conv_kernels=((3, 3, 3),) * 2,
        base_features=4,
    )
    network = PlainUNet().build(spec).to(memory_format=torch.channels_last_3d)
    images = torch.randn(2, 1, 16, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    trained = network(images)[0]
    assert sum(used) == 4  # the second of the encoder's two, one at the bottleneck, both of the decoder
    used.clear()
    with torch.no_grad():
        torch.testing.assert_close(network(images)[0], trained.detach(), rtol=1e-4, atol=1e-4)
    assert not any(used)
