"""The logits that a network returns: one tensor, or one for each of several resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nnunet_core.contracts.abilities import ability
from nnunet_core.contracts.network import DeepSupervision
from nnunet_core.errors import TrainingError


def heads_of(returned: object) -> list[torch.Tensor]:
    """Return what a network returned as a list of logits, full resolution first
    (contracts.NetworkBuilder).

    Raises:
        TrainingError: It is neither a tensor nor a list or tuple of tensors.
    """
    given = list(returned) if isinstance(returned, list | tuple) else [returned]
    heads = [head for head in given if isinstance(head, torch.Tensor)]
    if not heads or len(heads) < len(given):
        raise TrainingError(
            f"The network returned {_described(returned)}. Allowed are logits (B, output_channels, "
            "*patch), or a list or tuple of them, full resolution first."
        )
    return heads


def set_deep_supervision(network: torch.nn.Module, wanted: bool) -> bool:
    """Let a network that can return the full resolution alone do so, unless further ones are
    wanted.

    Returns:
        Whether it returned further ones before. Others are never switched on: the network may not
        have been built with them.
    """
    able = ability(network, DeepSupervision)
    if able is None:
        return False
    before = able.deep_supervision
    able.deep_supervision = before and wanted
    return before


def sum_of(heads: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of all logits of some heads: a scalar to go backwards from."""
    return torch.stack([head.float().sum() for head in heads]).sum()


def _described(returned: object) -> str:
    kind = type(returned).__name__
    if isinstance(returned, list | tuple):
        return f"a {kind} of {', '.join(type(part).__name__ for part in returned) or 'nothing'}"
    return f"an object of the class {kind}"
