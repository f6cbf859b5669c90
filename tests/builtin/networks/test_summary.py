"""What a training shows of its network."""

import itertools
import re

import numpy as np
import pytest
import small_training as small
import torch
from PIL import Image

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.summary import (
    _Layout,
    describe_network,
    network_picture,
    network_table,
)
from nnunet_builtin.planning.architecture import topology
from nnunet_core.data.plans import NetworkSpec

pytestmark = pytest.mark.pictures

ANISOTROPIC = ((1, 2, 2), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))


def spec_of(pools, kernels, **more):
    dimensions = len(kernels[0])
    values = {"dimensions": dimensions, "input_channels": 1, "output_channels": 3, **more}
    return NetworkSpec(pool_kernels=pools, conv_kernels=kernels, **values)


def task_of(folder, spec, patch, network=None):
    report = small.Told()
    sizes = {"network": spec, "patch_size": patch}
    configuration = small.CONFIGURATION.model_copy(update=sizes)
    how = {"network": network or PlainUNet(), "report": report}
    task = small.task_without_cases(folder, configuration, small.labels_of(small.CLASSES), **how)
    return task, report.warnings


def test_the_table_has_every_layer_and_the_parameters_of_the_specification():
    net = topology((1, 1, 1), (40, 56, 40))
    network = PlainUNet().build(spec_of(net.pools, net.kernels))
    text = network_table(network, (9, 1, 40, 56, 40))
    assert (
        "parameters: 5,602,944, trained: 5,602,944" in text
    )  # spec: network, section 7, example A
    convolutions = sum(
        isinstance(m, torch.nn.Conv3d | torch.nn.ConvTranspose3d) for m in network.modules()
    )
    assert len(re.findall(r"Conv3d|ConvTranspose3d", text)) == convolutions
    assert "[9, 32, 40, 56, 40]" in text
    assert "[9, 3, 40, 56, 40]" in text


def test_the_estimate_counts_two_maps_per_convolution_block():
    spec = spec_of(((2, 2),), ((3, 3), (3, 3)), base_features=4)
    text = network_table(PlainUNet().build(spec), (1, 1, 1024, 1024))
    voxels = 1024 * 1024
    blocks = 4 * 4 * voxels + 2 * 8 * voxels / 4  # encoder and decoder, bottleneck
    maps = 2 * blocks + 4 * voxels + 3 * voxels  # with the transposed convolution and the head
    assert f"feature maps of the batch, kept for the gradients: {4 * maps / 1e9:.2f} GB" in text


def test_showing_changes_neither_network_nor_random_numbers(tmp_path):
    torch.manual_seed(0)
    spec = spec_of(*ANISOTROPIC, base_features=4)
    network = PlainUNet().build(spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    task, warnings = task_of(tmp_path, spec, (8, 32, 32))
    describe_network(network, task, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    assert warnings == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["network.png", "network.txt"]
    assert "as planners count it" in (tmp_path / "network.txt").read_text()


def test_without_deep_supervision_one_head_is_drawn():
    spec = spec_of(*ANISOTROPIC)
    assert [box.line for box in _Layout.of(spec, (16, 64, 64), heads=1).heads] == ["segmentation"]


def test_another_network_has_a_table_and_no_drawing(tmp_path):
    spec = spec_of(((2, 2),), ((3, 3), (3, 3)))
    task, warnings = task_of(tmp_path, spec, (16, 16))
    describe_network(torch.nn.Conv2d(1, 3, 3), task, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["network.txt"]
    assert warnings == []


def test_what_cannot_be_shown_is_a_warning(tmp_path):
    class Fails(torch.nn.Conv2d):
        def forward(self, images):
            raise RuntimeError("no shapes")

    task, warnings = task_of(tmp_path, spec_of(((2, 2),), ((3, 3), (3, 3))), (16, 16))
    describe_network(Fails(1, 1, 1), task, 2)
    assert len(warnings) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("depth", range(1, 8))
@pytest.mark.parametrize("dimensions", [2, 3])
def test_boxes_of_the_drawing_lie_inside_and_apart(depth, dimensions):
    pools, kernels = ((2,) * dimensions,) * depth, ((3,) * dimensions,) * (depth + 1)
    layout = _Layout.of(spec_of(pools, kernels, max_features=480), (512,) * dimensions)
    boxes = [layout.image, *layout.encoder, *layout.decoder, *layout.heads]
    for box in boxes:
        assert 0 < box.left[0] < box.right[0] < layout.width
        assert 0 < box.y < layout.height
    assert all(above.x < below.x for above, below in itertools.pairwise(layout.encoder))
    for row in {box.y for box in boxes}:
        same = sorted((box for box in boxes if box.y == row), key=lambda box: box.x)
        assert all(first.right[0] < second.left[0] for first, second in itertools.pairwise(same))


def test_the_drawing_says_what_the_network_is(tmp_path):
    spec = spec_of(*ANISOTROPIC)
    layout = _Layout.of(spec, (16, 64, 64))
    assert [box.title for box in layout.encoder] == [
        "32 × 16×64×64",
        "64 × 16×32×32",
        "128 × 16×16×16",
        "256 × 8×8×8",
    ]
    assert [box.line for box in layout.decoder] == [
        "2 × conv 1×3×3",
        "2 × conv 3×3×3",
        "2 × conv 3×3×3",
    ]
    assert [box.title for box in layout.heads] == ["3 × 16×64×64", "3 × 16×32×32", "3 × 16×16×16"]
    network_picture(spec, (16, 64, 64), tmp_path / "network.png", 2)
    picture = np.asarray(Image.open(tmp_path / "network.png").convert("L"))
    assert picture.shape == pytest.approx(
        (round(layout.height * 110), round(layout.width * 110)), abs=1
    )
    assert picture.std() > 10
