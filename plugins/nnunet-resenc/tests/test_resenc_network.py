"""The network is that of nnU-Net v2: its weights fit whole, and it returns what v2's returns.

The numbers of v2 are those that tests/parity/peer_v2_resenc.py prints.
"""

import json
from pathlib import Path

import pytest
import torch
from made_weights import IMAGES, made

from nnunet_builtin.networks.state_names import from_v2
from nnunet_core.data.plans import NetworkSpec
from nnunet_resenc.network import ResEncUNet

ROWS = {
    len(row["strides"][0]): row
    for row in map(
        json.loads, Path(__file__).with_name("network_v2.jsonl").read_text().splitlines()
    )
}
BYTES = 8


def spec_of(row, **changes):
    return NetworkSpec(
        **{
            "dimensions": len(row["strides"][0]),
            "input_channels": 2,
            "output_channels": 3,
            "pool_kernels": row["strides"][1:],
            "conv_kernels": row["kernels"],
            "base_features": row["features"][0],
            "max_features": row["features"][-1],
            **changes,
        }
    )


@pytest.fixture(params=ROWS)
def row(request):
    return ROWS[request.param]


def test_weights_of_v2_fit_and_predict_as_there(row):
    network = ResEncUNet().build(spec_of(row)).eval()
    assert sum(p.numel() for p in network.parameters()) == row["parameters"]
    network.load_state_dict(from_v2(made(row["shapes"])))
    with torch.no_grad():
        heads = network(IMAGES[len(row["strides"][0])])
    assert len(heads) == len(row["logits"])
    for head, expected in zip(heads, row["logits"], strict=True):
        torch.testing.assert_close(
            head.flatten()[::11], torch.tensor(expected), rtol=1e-4, atol=1e-5
        )


def test_memory_is_counted_as_v2_counts_it(row):
    spec, patch = spec_of(row), IMAGES[len(row["strides"][0])].shape[2:]
    assert ResEncUNet().memory(spec, patch) == row["values"] * BYTES


def test_memory_follows_settings_of_the_network():
    row = ROWS[3]
    patch = (8, 32, 32)

    def memory(**settings):
        return ResEncUNet(**settings).memory(spec_of(row), patch)

    same = memory(features=(4, 8, 8, 8), decoder_convs=(1, 1, 1), stem_features=4)
    assert same == memory()
    voxels = 8 * 32 * 32
    assert memory(decoder_convs=(2, 1, 1)) - memory() == 4 * voxels * BYTES
    # another stem is 3 features more, and the first block needs a convolution of its skip
    assert memory(stem_features=7) - memory() == (3 + 4) * voxels * BYTES
    assert memory(blocks=(2, 3, 4, 6)) - memory() == 2 * 4 * voxels * BYTES


def test_residual_blocks_add_nothing_at_first():
    block = ResEncUNet().build(spec_of(ROWS[3])).encoder[1][1]
    images = torch.randn(1, 8, 4, 8, 8)
    torch.testing.assert_close(block(images), torch.nn.functional.leaky_relu(images, 0.01))
