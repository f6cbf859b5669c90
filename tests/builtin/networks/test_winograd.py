"""Convolutions by fewer products: the values and gradients of PyTorch's own, and where they are
used.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.networks.cpu import acceleration, winograd
from nnunet_builtin.networks.cpu.acceleration import accelerate
from nnunet_builtin.networks.cpu.winograd import convolve, is_worthwhile
from nnunet_builtin.networks.placing import placed
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_core.data.plans import NetworkSpec

LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}


def layer(dimensions, inputs=3, outputs=2, kernel=3, stride=1, bias=True):
    torch.manual_seed(0)
    padding = [size // 2 for size in kernel] if isinstance(kernel, tuple) else kernel // 2
    return CONVOLUTION[dimensions](inputs, outputs, kernel, stride, padding, bias=bias).double()


def features(size, channels=3, dtype=torch.float64):
    values = torch.randn(2, channels, *size, dtype=dtype)
    return values.contiguous(memory_format=LAYOUT[len(size)]).requires_grad_()


@pytest.fixture
def small_is_worthwhile(monkeypatch):
    """Let few products be enough, on any processor."""
    monkeypatch.setattr(acceleration, "has_tile_products", lambda: False)
    monkeypatch.setattr(winograd, "_FEWEST_PRODUCTS", 1)


def mixed_precision():
    return torch.autocast("cpu", torch.bfloat16)


def gradients(result, inputs):
    torch.manual_seed(1)
    return torch.autograd.grad(result, inputs, torch.randn(result.shape, dtype=result.dtype))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(6, 5, 4), (8, 1, 7), (10, 9)])
def test_values_and_gradients_are_those_of_the_convolution(size, bias):
    conv, images = layer(len(size), bias=bias), features(size)
    result, expected = winograd._Winograd.apply(images, conv.weight, conv.bias), conv(images)
    torch.testing.assert_close(result, expected)
    inputs = [images, *conv.parameters()]
    for found, wanted in zip(gradients(result, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(found, wanted)


RUNTIME = ResolvedRuntime(torch.device("cpu"), torch.bfloat16, 1, 0)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_it_takes_other_weights(small_is_worthwhile, order):
    conv = layer(3).float()
    images = features((6, 6, 6), dtype=torch.bfloat16)
    weight = torch.randn(2, 3, 3, 3, 3)
    expected = nn.functional.conv3d(images.float(), weight, conv.bias, padding=1)
    accelerate(conv, RUNTIME)
    with mixed_precision():
        result = convolve(conv, images.contiguous(memory_format=order), weight)
    torch.testing.assert_close(result.float(), expected, rtol=0.02, atol=0.5)


def test_convolutions_that_keep_the_size_with_kernels_of_3_get_it_in_bfloat16(
    small_is_worthwhile, monkeypatch
):
    def gets_it(conv, runtime=RUNTIME):
        accelerate(conv, runtime)
        return isinstance(conv, winograd.Conv2d | winograd.Conv3d)

    assert gets_it(layer(3))
    assert gets_it(layer(2))
    assert not gets_it(layer(3, kernel=(1, 3, 3)))
    assert not gets_it(layer(3, stride=2))
    for other in ({"dilation": 2, "padding": 2}, {"groups": 3}, {"padding": 0}):
        assert not gets_it(nn.Conv3d(3, 3, 3, **{"padding": 1, **other}))
    assert not gets_it(nn.Conv3d(3, 3, 3, padding=1, padding_mode="reflect"))
    assert not gets_it(layer(3), replace(RUNTIME, dtype=torch.float32))
    assert not gets_it(layer(3), replace(RUNTIME, device=torch.device("meta")))
    monkeypatch.setattr(acceleration, "has_tile_products", lambda: True)
    assert not gets_it(layer(3))


def test_it_is_used_in_mixed_precision_on_large_grids_alone(small_is_worthwhile, monkeypatch):
    weight, images = layer(3).float().weight, features((6, 6, 6), dtype=torch.bfloat16)
    assert not is_worthwhile(
        weight, images
    )  # the convolution would not compute in the precision of the features
    assert not is_worthwhile(weight, features((6, 6, 6), dtype=torch.float32))
    with mixed_precision():
        assert is_worthwhile(weight, images)
        for size in [(7, 6, 6), (4, 6, 6), (6, 2, 1)]:
            assert not is_worthwhile(weight, features(size, dtype=torch.bfloat16))
        for others in (images.detach(), images.contiguous(), images.to("meta"), images.float()):
            assert not is_worthwhile(weight, others)
        with torch.no_grad():
            assert not is_worthwhile(weight, images)
        monkeypatch.setattr(winograd, "_FEWEST_PRODUCTS", 2 * 6**3 * 3 * 2)
        assert is_worthwhile(weight, images)
        monkeypatch.setattr(winograd, "_FEWEST_PRODUCTS", 2 * 6**3 * 3 * 2 + 1)
        assert not is_worthwhile(weight, images)


def test_rounding_stays_near_that_of_the_convolution_in_bfloat16():
    torch.manual_seed(0)
    conv, exact = nn.Conv3d(16, 16, 3, padding=1), features((8, 8, 8), 16, torch.float32)
    rounded = exact.detach().bfloat16().requires_grad_()
    expected = conv(exact)
    wanted = [expected, *gradients(expected, [exact, conv.weight, conv.bias])]
    with mixed_precision():
        results = [conv(rounded), winograd._Winograd.apply(rounded, conv.weight, conv.bias)]
    errors = [
        [((a - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True)]
        for found in (
            [result, *gradients(result, [rounded, conv.weight, conv.bias])] for result in results
        )
    ]
    for plain, fast in zip(*errors, strict=True):
        assert fast < max(0.01, 4 * plain)
        assert fast < 0.02


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this CPU's convolutions in bfloat16 are not channels-last",
)
def test_a_network_trains_with_it_and_predicts_without_it(small_is_worthwhile, monkeypatch):
    used = []
    own = winograd.is_worthwhile
    monkeypatch.setattr(
        winograd, "is_worthwhile", lambda *given: used.append(own(*given)) or used[-1]
    )
    spec = NetworkSpec(
        dimensions=3,
        input_channels=1,
        output_channels=2,
        pool_kernels=((2, 2, 2),),
        conv_kernels=((3, 3, 3),) * 2,
        base_features=4,
    )
    network = placed(PlainUNet().build(spec), RUNTIME, 3)
    images = torch.randn(2, 1, 16, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    network(images)
    assert not any(used)  # in float32
    with mixed_precision():
        trained = network(images)[0]
        assert (
            sum(used) == 4
        )  # the second of the encoder's two, one at the bottleneck, both of the decoder
        used.clear()
        with torch.no_grad():
            torch.testing.assert_close(network(images)[0], trained.detach(), rtol=0.1, atol=0.1)
    assert not any(used)
