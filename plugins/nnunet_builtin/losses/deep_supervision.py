"""Losses at several resolutions: weights, targets, and their sum (spec: training, sections 2 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from nnunet_core.contracts.abilities import ChangesWithEpochs, ability


def weights(heads: int) -> list[float]:
    """Return the weight of each head, full resolution first: halved at each step, the coarsest 0, normalised to 1."""
    raw = [0.5**head for head in range(heads)]
    if heads > 1:
        raw[-1] = 0.0
    return [value / sum(raw) for value in raw]


def targets(label: torch.Tensor, pool_kernels: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Return the label (B, R, *spatial) at the resolution of every head: nearest neighbour, sample f * i + f // 2."""
    found, factors = [label], [1] * (label.ndim - 2)
    for kernel in pool_kernels[:-1]:
        factors = [factor * step for factor, step in zip(factors, kernel, strict=True)]
        steps = tuple(slice(factor // 2, None, factor) for factor in factors)
        found.append(label[(slice(None), slice(None), *steps)])
    return found


class DeepSupervisionLoss(nn.Module):
    """The weighted sum of a loss over the heads; heads of weight 0 are not computed.

    Args:
        loss: Loss of one resolution.
        heads: Number of heads.
    """

    def __init__(
        self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], heads: int
    ) -> None:
        super().__init__()
        self.loss = loss
        self.weights = weights(heads)

    def set_epoch(self, epoch: int) -> None:
        """Tell a loss that changes in the course of a training which epoch it is."""
        changing = ability(self.loss, ChangesWithEpochs)
        if changing is not None:
            changing.set_epoch(epoch)

    def forward(
        self, heads: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Return the loss of logits and labels, both lists with the full resolution first."""
        pairs = zip(self.weights, heads, labels, strict=True)
        return torch.stack(
            [
                weight * self.loss(at_least_float32(logits), label)
                for weight, logits, label in pairs
                if weight
            ]
        ).sum()


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32 or better: in fewer bits, sums over a patch are inexact or overflow."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
