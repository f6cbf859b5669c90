"""Losses at several resolutions: weights, targets, and their sum (spec: training, sections 2 and
5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from nnunet_core.contracts.abilities import ChangesWithEpochs, ability
from nnunet_core.errors import TrainingError


def weights(heads: int) -> list[float]:
    """Return the weight of each head, full resolution first: halved at each step, the coarsest 0,
    normalised to 1.
    """
    raw = [0.5**head for head in range(heads)]
    if heads > 1:
        raw[-1] = 0.0
    return [value / sum(raw) for value in raw]


def targets(label: torch.Tensor, sizes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Return the label (B, R, *spatial) at the resolution of every head: nearest neighbour, sample
    f * i + f // 2.

    Args:
        label: At the full resolution.
        sizes: Spatial size of each head.

    Raises:
        TrainingError: A size that is not made by taking every f-th voxel of the label, f a whole
            number for each axis.
    """
    every = (slice(None), slice(None))
    return [label[every + _samples(label.shape[2:], size)] for size in sizes]


def _samples(label: Sequence[int], head: Sequence[int]) -> tuple[slice, ...]:
    """Return which voxels of the label a head of this size is compared with."""
    if len(label) != len(head) or any(
        voxels % size for voxels, size in zip(label, head, strict=True)
    ):
        raise TrainingError(
            f"The network returned logits of {_times(head)} voxels for labels of {_times(label)}. "
            "Along each axis, the size of the label must be a multiple of theirs: only whole "
            "voxels can be left out of a label. Change the network, or the patch size of the plans."
        )
    factors = [voxels // size for voxels, size in zip(label, head, strict=True)]
    return tuple(slice(factor // 2, None, factor) for factor in factors)


def _times(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


class DeepSupervisionLoss(nn.Module):
    """The weighted sum of a loss over the heads; heads of weight 0 are not computed.

    Args:
        loss: Loss of one resolution.
    """

    def __init__(self, loss: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def set_epoch(self, epoch: int) -> None:
        """Tell a loss that changes in the course of a training which epoch it is."""
        changing = ability(self.loss, ChangesWithEpochs)
        if changing is not None:
            changing.set_epoch(epoch)

    def forward(
        self,
        heads: Sequence[torch.Tensor],
        labels: Sequence[torch.Tensor],
        arrays: Sequence[Mapping[str, torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        """Return the loss of logits, labels and, where it uses them, extra arrays: lists with the
        full resolution first.
        """
        further = [()] * len(heads) if arrays is None else [(each,) for each in arrays]
        pairs = zip(weights(len(heads)), heads, labels, further, strict=True)
        return torch.stack(
            [
                weight * self.loss(at_least_float32(logits), label, *more)
                for weight, logits, label, more in pairs
                if weight
            ]
        ).sum()


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32 or better: in fewer bits, sums over a patch are inexact or
    overflow.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
