"""Networks with the weights of nnU-Net v1, from the golden numbers."""

import json

import numpy as np
import torch

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.state_names import from_v1
from nnunet_core.data.plans import NetworkSpec


def spec_of(entry):
    return NetworkSpec(
        dimensions=entry["dim"],
        input_channels=entry["input_channels"],
        output_channels=entry["num_classes"],
        pool_kernels=entry["pool_op_kernel_sizes"],
        conv_kernels=entry["conv_kernel_sizes"],
        base_features=entry["base_num_features"],
        max_features=480 if entry["dim"] == 2 else 320,
        convs_per_stage=entry["num_conv_per_stage"],
    )


def load_golden_network(golden, name):
    """Return a network of the golden file with its weights, and the arrays of the file that belong
    to it.
    """
    entry = next(e for e in json.loads((golden / "network.json").read_text()) if e["name"] == name)
    with np.load(golden / "network.npz") as content:
        arrays = {
            key.removeprefix(f"{name}__"): content[key]
            for key in content.files
            if key.startswith(f"{name}__")
        }
    network = PlainUNet().build(spec_of(entry))
    weights = {
        key.removeprefix("weight__"): torch.from_numpy(a)
        for key, a in arrays.items()
        if key.startswith("weight__")
    }
    network.load_state_dict(from_v1(weights))
    return network, arrays
