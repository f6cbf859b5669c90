"""The U-Net with a residual encoder: its blocks, its planner's estimate, and that it trains."""

import numpy as np
import pytest
import small_training as small
import torch
from torch.nn import functional

from nnunet_builtin.inference.sliding_window import SlidingWindow
from nnunet_builtin.networks.estimate import BYTES_PER_VALUE, PLAIN_VALUES
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError


def spec_of(dimensions=3, resolutions=3, **changes):
    pools = ((1, 2, 2)[-dimensions:], *((2,) * dimensions for _ in range(resolutions - 2)))
    return NetworkSpec(
        **{
            "dimensions": dimensions,
            "input_channels": 2,
            "output_channels": 3,
            "pool_kernels": pools,
            "conv_kernels": (
                (1, 3, 3)[-dimensions:],
                *((3,) * dimensions for _ in range(resolutions - 1)),
            ),
            "base_features": 8,
            **changes,
        }
    )


def instance_norm(features, norm):
    return functional.instance_norm(features, weight=norm.weight, bias=norm.bias)


def leaky(features):
    return functional.leaky_relu(features, 0.01)


@pytest.mark.parametrize("block", [0, 1])
def test_a_block_adds_its_convolutions_to_its_input(block):
    """The first block of the second resolution changes features and resolution, the next one
    neither.
    """
    torch.manual_seed(0)
    layer = ResidualUNet().build(spec_of()).encoder[1][block]
    for name, parameter in layer.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter)
    stride, images = (
        ((1, 2, 2), torch.randn(2, 8, 4, 8, 8))
        if block == 0
        else ((1, 1, 1), torch.randn(2, 16, 4, 4, 4))
    )
    first = functional.conv3d(images, layer.first.conv.weight, stride=stride, padding=1)
    second = functional.conv3d(
        leaky(instance_norm(first, layer.first.norm)), layer.second.weight, padding=1
    )
    added = images
    if block == 0:
        added = instance_norm(
            functional.conv3d(images, layer.skip.weight, stride=stride), layer.skip_norm
        )
    expected = leaky(instance_norm(second, layer.norm) + added)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        found = layer.to(memory_format=layout)(images.contiguous(memory_format=layout))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_heads_have_every_resolution_but_the_coarsest(dimensions):
    spec = spec_of(dimensions, resolutions=4)
    heads = ResidualUNet().build(spec)(torch.zeros(1, 2, *(8, 16, 16)[-dimensions:]))
    sizes = [(8, 16, 16), (8, 8, 8), (4, 4, 4)]
    assert [tuple(head.shape) for head in heads] == [(1, 3, *size[-dimensions:]) for size in sizes]


def test_blocks_per_resolution():
    network = ResidualUNet(blocks=(1, 3, 2)).build(spec_of())
    assert [len(stage) for stage in network.encoder] == [
        2,
        3,
        2,
    ]  # the finest begins with a plain convolution
    assert [len(stage) for stage in network.decoder] == [1, 1]
    with pytest.raises(UsageError, match=r"network\.blocks=\[1, 3\].*3 resolutions"):
        ResidualUNet(blocks=(1, 3)).build(spec_of())


def test_blocks_that_add_nothing_at_first():
    block = ResidualUNet(zero_init=True).build(spec_of()).encoder[1][1]
    images = torch.randn(1, 16, 4, 4, 4)
    torch.testing.assert_close(block(images), leaky(images))


def test_the_estimate_is_that_of_v1s_planner():
    """v1's own number for two samples of 96x160x160 voxels, two channels, three classes."""
    spec = spec_of(resolutions=6, conv_kernels=((3, 3, 3),) * 6, base_features=32)
    values = ResidualUNet().memory(spec, (96, 160, 160)) / (PLAIN_VALUES[3] * BYTES_PER_VALUE)
    assert values == pytest.approx(1601836800.0, rel=1e-12)


def test_to_begin_with_a_norm_needs_one():
    with pytest.raises(UsageError, match=r"network\.zero_init"):
        ResidualUNet(zero_init=True, norm="none").build(spec_of())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_it_trains_and_predicts(tmp_path, norm):
    builder = ResidualUNet(norm=norm)
    folder = small.train(tmp_path / "fold_0", {"ema": 0.5}, network=builder)
    task = small.make_task(folder)
    model = TrainedModel(
        folds=(folder,),
        configuration=task.configuration,
        labels=task.labels,
        network=builder,
        runtime=task.runtime,
        mirror_axes=(0, 1, 2),
    )
    probabilities = SlidingWindow().load(model)(np.zeros((1, *small.SHAPE), np.float32)).whole()
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
