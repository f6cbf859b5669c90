"""Sums and means over the batch of all processes of a distributed training.

Each process computes the loss of its own samples, and DistributedDataParallel averages the gradients. With these functions
the average is the gradient of the loss of the joined batch, whatever the number of samples or ignored voxels per process.
"""

from __future__ import annotations

import torch
from torch import distributed


def world_size() -> int:
    """Return the number of processes that train together, 1 without torch.distributed."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def total(own: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes; its gradient flows into the own part, times the number of processes.

    The factor is that number because each of W processes derives the same joined loss by its own part only: the average
    over processes of W times these parts is their sum, which is the gradient of the joined batch.

    Every process must call this equally often, also in validation.
    """
    processes = world_size()
    if processes == 1:
        return own
    joined = own.detach().clone()
    distributed.all_reduce(joined)
    return joined + processes * (own - own.detach())


def mean(summed: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return this process's share of the mean over the joined batch: shares average to it. 0 where nothing has weight.

    Args:
        summed: Weighted sum of the own values, scalar.
        weight: Sum of the own weights, scalar without gradient.
    """
    joined = total(weight)
    return summed * world_size() / joined.masked_fill(joined == 0, 1)
