"""What builds networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from nnunet_core.data.plans import NetworkSpec


class NetworkBuilder(Protocol):
    """Builds a network, and knows how much memory one takes and which patch sizes fit it."""

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return a network: (B, input_channels, *patch) -> list of logits (B, output_channels, *resolution).

        The list holds the full resolution first. With `module.deep_supervision = False` the network returns the
        full-resolution tensor alone. One that uses other weights from batch to batch has `module.graph_changes = True`:
        several processes that train together look in every batch for those that were used.
        """
        ...

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the bytes that training on one patch (voxels per axis) takes; planners compare them with their budget."""
        ...

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return the number of voxels, per axis, that patch sizes must be multiples of."""
        ...
