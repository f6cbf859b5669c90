"""Where a built network goes: on the device that it is computed on, as fast as it can be there."""

from __future__ import annotations

import torch

from nnunet_builtin.computing.devices import ResolvedRuntime, memory_format
from nnunet_builtin.networks.cpu.acceleration import accelerate


def placed(network: torch.nn.Module, runtime: ResolvedRuntime, dimensions: int) -> torch.nn.Module:
    """Move a network to the device, weights of convolutions in the memory order of its features,
    and accelerate it.

    Args:
        network: As it was built; it is changed in place.
        runtime: Where it is computed.
        dimensions: Spatial axes of its features.
    """
    order = memory_format(runtime, dimensions)
    for weight in network.parameters():
        if weight.ndim == dimensions + 2:
            weight.data = weight.data.to(memory_format=order)
    accelerate(network, runtime)
    return network.to(runtime.device)
