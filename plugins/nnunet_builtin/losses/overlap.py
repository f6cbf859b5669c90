"""How well soft predictions overlap with the truth, 1 is best: Dice, Tversky and relatives (spec:
training, section 2).
"""

from __future__ import annotations

import torch

from nnunet_builtin.losses.likelihoods import ClassSums

_NO_DIVISION_BY_ZERO = 1e-8


def tversky(sums: ClassSums, smooth: float, alpha: float = 0.5, beta: float = 0.5) -> torch.Tensor:
    """Return (2 tp + smooth) / (2 tp + 2 alpha fp + 2 beta fn + smooth + 1e-8), (B, K); with 0.5
    and 0.5 the soft Dice.
    """
    tp = sums.both
    fp, fn = sums.predicted - tp, sums.true - tp
    return (2 * tp + smooth) / (2 * (tp + alpha * fp + beta * fn) + smooth + _NO_DIVISION_BY_ZERO)


def squared_dice(sums: ClassSums, smooth: float) -> torch.Tensor:
    """Return 2 (tp + smooth) / (sum of p^2 + sum of g + smooth), (B, K); expects the sums of
    squares.
    """
    size = sums.predicted + sums.true
    return 2 * (sums.both + smooth) / (size + smooth + _NO_DIVISION_BY_ZERO)


def generalised_dice(sums: ClassSums, smooth: float) -> torch.Tensor:
    """Return the Dice of all classes together, each weighted by 1 / (its voxels + 1e-6), (B, 1)."""
    weights = 1 / (sums.true + 1e-6)
    both = (weights * sums.both).sum(1, keepdim=True)
    size = (weights * (sums.predicted + sums.true)).sum(1, keepdim=True)
    return (2 * both + smooth) / (size + smooth + _NO_DIVISION_BY_ZERO)


def mcc(sums: ClassSums, smooth: float) -> torch.Tensor:
    """Return Matthews correlation coefficients (B, K); 0 without gradient for a class with no voxel
    or with all of them.
    """
    n = sums.voxels.clamp(min=1)
    constant = (sums.true == 0) | (sums.true == sums.voxels)
    tp, fp, fn = sums.both / n, (sums.predicted - sums.both) / n, (sums.true - sums.both) / n
    predicted, rest = sums.predicted / n, (sums.voxels - sums.predicted) / n
    tiny = torch.finfo(tp.dtype).eps
    spread = (
        predicted.clamp(min=tiny)
        * rest.clamp(min=tiny)
        * (sums.true / n)
        * ((sums.voxels - sums.true) / n)
    )
    spread = torch.where(constant, torch.ones_like(spread), spread).sqrt()
    agreement = tp * (rest - fn) - fp * fn
    return (torch.where(constant, torch.zeros_like(tp), agreement) + smooth) / (spread + smooth)
