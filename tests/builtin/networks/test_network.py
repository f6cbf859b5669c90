"""The network: v1's outputs for v1's weights, its sizes, and gradients of the fused
normalisation.
"""

import numpy as np
import pytest
import torch
from golden_networks import load_golden_network
from small_training import isotropic
from torch.nn import functional

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError


@pytest.mark.shared
@pytest.mark.parametrize("name", ["iso3d", "aniso3d", "planes2d", "cascade3d"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_head_equals_v1(golden, name, channels_last):
    network, arrays = load_golden_network(golden, name)
    images = torch.from_numpy(arrays["x"])
    if channels_last:
        layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
        network, images = network.to(memory_format=layout), images.contiguous(memory_format=layout)
    with torch.no_grad():
        heads = network(images)
    expected = [arrays[f"y{index}"] for index in range(len(heads))]
    assert f"y{len(heads)}" not in arrays
    for head, reference in zip(heads, expected, strict=True):
        np.testing.assert_allclose(head.numpy(), reference, atol=1e-4)
    network.deep_supervision = False
    with torch.no_grad():
        np.testing.assert_allclose(network(images).numpy(), expected[0], atol=1e-4)


@pytest.mark.parametrize(
    ("dimensions", "depth", "inputs", "outputs", "parameters"),
    [
        (3, 3, 1, 3, 5_602_944),
        (2, 3, 1, 3, 1_928_256),
        (3, 5, 1, 3, 31_195_584),
        (3, 5, 3, 3, 31_197_312),
        (2, 7, 1, 3, 41_264_352),
    ],
)
def test_parameter_counts(dimensions, depth, inputs, outputs, parameters):
    most = 480 if dimensions == 2 else 320
    spec = isotropic(
        depth, dimensions, input_channels=inputs, output_channels=outputs, max_features=most
    )
    with torch.device("meta"):
        network = PlainUNet().build(spec)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_initialisation_is_kaiming_with_zero_biases():
    torch.manual_seed(0)
    for name, tensor in PlainUNet().build(isotropic(2)).named_parameters():
        if tensor.ndim > 1 and tensor.numel() > 1000:
            fan_in = tensor.shape[1] * np.prod(tensor.shape[2:])
            assert tensor.std().item() == pytest.approx(
                np.sqrt(2 / (1 + 1e-4) / fan_in), rel=0.1
            ), name
        elif name.endswith("bias"):
            assert not tensor.any(), name


def test_both_memory_orders_learn_the_same():
    spec = NetworkSpec(
        dimensions=3,
        input_channels=2,
        output_channels=2,
        pool_kernels=((1, 2, 2),),
        conv_kernels=((1, 3, 3), (3, 3, 3)),
        base_features=8,
    )
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        torch.manual_seed(0)
        network = PlainUNet().build(spec).to(memory_format=layout)
        images = torch.randn(2, 2, 6, 8, 8)
        network(images.contiguous(memory_format=layout))[0].square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_bfloat16_follows_float32():
    torch.manual_seed(0)
    network = PlainUNet().build(isotropic(2, base_features=8))
    images = torch.randn(1, 1, 16, 16, 16)
    exact = network(images)[0]
    with torch.autocast("cpu", torch.bfloat16):
        coarse = network(images)[0]
    assert (exact - coarse).abs().mean() < 0.02 * exact.abs().mean() + 0.02


def variant_block(**style):
    """Return one block of a network, with random norm parameters, and images in both memory
    orders.
    """
    torch.manual_seed(0)
    spec = isotropic(1, input_channels=2, base_features=8)
    block = PlainUNet(**style).build(spec).encoder[0][0]
    for parameter in block.norm.parameters():
        torch.nn.init.normal_(parameter)
    images = torch.randn(2, 2, 6, 8, 8)
    return block, [images, images.contiguous(memory_format=torch.channels_last_3d)]


def leaky(features, slope=0.01):
    return functional.leaky_relu(features, slope)


def response_norm(features, norm):
    axes, shape = (2, 3, 4), (1, -1, 1, 1, 1)
    scaled = features / (features.square().mean(axes, keepdim=True) + 1e-6).sqrt()
    return torch.maximum(
        norm.weight.view(shape) * scaled + norm.bias.view(shape), norm.threshold.view(shape)
    )


def instance_norm(features, norm):
    return functional.instance_norm(features, weight=norm.weight, bias=norm.bias)


VARIANTS = [
    ({}, lambda x, n: leaky(instance_norm(x, n))),
    (
        {"norm": "batch"},
        lambda x, n: leaky(functional.batch_norm(x, None, None, n.weight, n.bias, training=True)),
    ),
    ({"norm": "group"}, lambda x, n: leaky(functional.group_norm(x, 8, n.weight, n.bias))),
    ({"norm": "frn"}, response_norm),
    ({"norm": "none"}, lambda x, _: leaky(x)),
    ({"activation": "gelu"}, lambda x, n: functional.gelu(instance_norm(x, n))),
    (
        {"activation": "mish"},
        lambda x, n: instance_norm(x, n) * functional.softplus(instance_norm(x, n)).tanh(),
    ),
    ({"norm_last": True, "negative_slope": 0.2}, lambda x, n: instance_norm(leaky(x, 0.2), n)),
]


@pytest.mark.parametrize(
    ("style", "expected"), VARIANTS, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_norms_and_activations(style, expected):
    block, orders = variant_block(**style)
    for images in orders:
        convolved = functional.conv3d(images, block.conv.weight, block.conv.bias, padding=1)
        torch.testing.assert_close(
            block(images), expected(convolved, block.norm), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("builder", [PlainUNet(), ResidualUNet()], ids=["plain", "residual"])
def test_compilers_see_the_whole_network(builder):
    network = builder.build(isotropic(2, base_features=4)).to(memory_format=torch.channels_last_3d)
    images = torch.randn(1, 1, 16, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    torch._dynamo.reset()
    compiled = torch.compile(network.forward, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled(images), network(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_heads_have_biases_on_request():
    spec = NetworkSpec(
        dimensions=2,
        input_channels=1,
        output_channels=3,
        pool_kernels=((2, 2),) * 2,
        conv_kernels=((3, 3),) * 3,
    )
    names = {name for name, _ in PlainUNet(head_bias=True).build(spec).named_parameters()}
    without = {name for name, _ in PlainUNet().build(spec).named_parameters()}
    assert names - without == {"heads.0.bias", "heads.1.bias"}


def test_features_that_cannot_be_grouped_are_refused():
    spec = NetworkSpec(
        dimensions=2,
        input_channels=1,
        output_channels=3,
        pool_kernels=((2, 2),),
        conv_kernels=((3, 3),) * 2,
        base_features=12,
    )
    with pytest.raises(UsageError, match=r"stages with 12 features.*planner\.base_features"):
        PlainUNet(norm="group").build(spec)
