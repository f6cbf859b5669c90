"""Runs inside an environment with nnunetv2 2.8.1: prints, a line of JSON for each, the tensors of
v2's residual encoder U-Nets, and what they return with weights that follow from names and shapes.

Usage: python tests/parity/peer_v2_resenc.py > plugins/nnunet-resenc/tests/network_v2.jsonl
"""

import json
import sys
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

sys.path.append(str(Path(__file__).parents[2] / "plugins" / "nnunet-resenc" / "tests"))

from made_weights import IMAGES, made

CONV = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
NORM = {2: torch.nn.InstanceNorm2d, 3: torch.nn.InstanceNorm3d}
#: Anisotropic, and one resolution more than the features grow with.
STRIDES, KERNELS = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 2)), ((1, 3, 3), *((3, 3, 3),) * 3)
FEATURES, BLOCKS = (4, 8, 8, 8), (1, 3, 4, 6)


def described(dimensions):
    axes = slice(-dimensions, None)
    network = ResidualEncoderUNet(
        2,
        n_stages=4,
        features_per_stage=FEATURES,
        conv_op=CONV[dimensions],
        kernel_sizes=[kernel[axes] for kernel in KERNELS],
        strides=[stride[axes] for stride in STRIDES],
        n_blocks_per_stage=BLOCKS,
        num_classes=3,
        n_conv_per_stage_decoder=(1, 1, 1),
        conv_bias=True,
        norm_op=NORM[dimensions],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(made(shapes))
    with torch.no_grad():
        heads = network(IMAGES[dimensions])
    network.decoder.deep_supervision = False  # as planners count
    plain = {
        n: s for n, s in shapes.items() if not any(a in n for a in ("decoder.encoder", "all_"))
    }
    return {
        "features": FEATURES,
        "strides": [stride[axes] for stride in STRIDES],
        "kernels": [kernel[axes] for kernel in KERNELS],
        "shapes": plain,
        "parameters": sum(p.numel() for p in network.parameters()),
        "values": network.compute_conv_feature_map_size(IMAGES[dimensions].shape[2:]).item(),
        "logits": [[round(v, 6) for v in head.flatten()[::11].tolist()] for head in heads],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for dimensions in CONV:
        print(json.dumps(described(dimensions)))
