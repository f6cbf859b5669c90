"""The builder of the U-Net; planning asks it for memory, so it imports PyTorch only to build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from nnunet_builtin.memory import unet_memory
from nnunet_core.plans import NetworkSpec

if TYPE_CHECKING:
    from nnunet_builtin.network import UNet


class PlainUNet:
    """Builds the U-Net of nnU-Net v1: strided convolutions down, transposed convolutions up, a head per resolution.

    Args:
        negative_slope: Of the leaky ReLU.
        layout: `v1`, or `v2`: biases in transposed convolutions and heads, and decoder kernels of the own resolution
            instead of the next coarser one. Weights of either nnU-Net fit their layout whole.
    """

    def __init__(self, negative_slope: NonNegativeFloat = 0.01, layout: Literal["v1", "v2"] = "v1") -> None:
        self.negative_slope = negative_slope
        self.layout = layout

    def build(self, spec: NetworkSpec) -> UNet:
        """Return the network (interfaces.NetworkBuilder), initialised as v1 initialises it."""
        from nnunet_builtin.network import UNet, initialise

        network = UNet(spec, self.negative_slope, self.layout)
        network.apply(initialise)
        return network

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the planner's memory estimate (interfaces.NetworkBuilder)."""
        return unet_memory(spec, patch_size)
