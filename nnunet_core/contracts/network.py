"""What builds networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from nnunet_core.data.plans import NetworkSpec


class NetworkBuilder(Protocol):
    """Builds a network, and knows how much memory one takes."""

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return a network: (B, input_channels, *patch) -> list of logits (B, output_channels, *resolution).

        The list holds the full resolution first. With `module.deep_supervision = False` the network returns the
        full-resolution tensor alone. One that uses other weights from batch to batch has `module.graph_changes = True`:
        several processes that train together look in every batch for those that were used.
        """
        ...

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the memory of training on one patch, in the planner's unit (spec: planning, section 5)."""
        ...
