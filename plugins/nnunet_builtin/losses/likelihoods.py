"""What logits say about the truth: for labels that exclude each other (softmax) and for regions
(sigmoid).

Every loss is made of the two things that both classes give: the log-probability of the truth at
each voxel, and soft counts per class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nnunet_builtin.computing import ranks


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Soft counts of counted voxels per sample and class (or region).

    Attributes:
        both: Sum of the probability where the class is true (B, K): true positives.
        predicted: Sum of the probability, or of its square (B, K).
        true: Voxels of the class (B, K).
        voxels: Counted voxels (B, 1).
    """

    both: torch.Tensor
    predicted: torch.Tensor
    true: torch.Tensor
    voxels: torch.Tensor

    def of_batch(self) -> ClassSums:
        """Return the sums over the batch of all processes, each with a batch axis of 1."""
        classes = self.both.shape[1]
        stacked = torch.cat([self.both, self.predicted, self.true, self.voxels], dim=1).sum(
            0, keepdim=True
        )
        return ClassSums(*ranks.total(stacked).split([classes, classes, classes, 1], dim=1))

    def foreground(self) -> ClassSums:
        """Return the sums without the first class."""
        return ClassSums(self.both[:, 1:], self.predicted[:, 1:], self.true[:, 1:], self.voxels)


class SoftmaxSums(torch.autograd.Function):
    """Log-probability of the truth, and sums of probabilities per class, from one softmax.

    The gradient is written by hand because it takes two arrays of the size of the logits where
    autograd takes six. With probabilities p, truth y and gradients g of the predicted sums and h of
    what depends on p_y alone, d/dz_k is p_k (g_k - sum_j p_j g_j) + h (1[k = y] - p_k).
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        label: torch.Tensor,
        seen: torch.Tensor | None,
        squares: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Return log p_y (B, 1, *spatial); sums of p_y by y, sums of p or p^2, and numbers of
        voxels by y, all (B, K).

        Args:
            ctx: What the gradient needs.
            logits: (B, K, *spatial).
            label: y, int64 (B, 1, *spatial).
            seen: bool (B, 1, *spatial): elsewhere log p_y is 0, and nothing is summed.
            squares: Sum p^2.
        """
        logs = functional.log_softmax(logits, dim=1)
        log_truth = logs.gather(1, label)
        probabilities = logs.exp_()
        axes = list(range(2, logits.ndim))
        counted = probabilities.square() if squares else probabilities
        counted = counted if seen is None else counted * seen
        predicted = counted.sum(axes)
        ones = torch.ones_like(log_truth) if seen is None else seen.to(log_truth.dtype)
        maps = torch.zeros_like(probabilities).scatter_(1, label, ones)
        true = maps.sum(axes)
        both = maps.mul_(probabilities).sum(axes)
        log_truth = log_truth if seen is None else log_truth * seen
        ctx.save_for_backward(probabilities, label, log_truth, seen)
        ctx.mark_non_differentiable(true)
        ctx.squares = squares
        return log_truth, both, predicted, true

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient of the logits."""
        of_log_truth, of_both, of_predicted = gradients[:3]
        probabilities, label, log_truth, seen = ctx.saved_tensors
        per_class = (*of_both.shape, *[1] * (label.ndim - 2))
        of_truth = of_both.view(per_class).expand(probabilities.shape).gather(1, label)
        of_own = of_log_truth + log_truth.exp() * of_truth
        result = probabilities * of_predicted.view(per_class)
        if ctx.squares:
            result.mul_(probabilities).mul_(2)
        result.addcmul_(probabilities, result.sum(1, keepdim=True) + of_own, value=-1)
        result.scatter_add_(1, label, of_own)
        return (result if seen is None else result.mul_(seen)), None, None, None


@dataclass(frozen=True, eq=False)
class Softmax:
    """Logits of labels that exclude each other.

    Attributes:
        label: int64 (B, 1, *spatial), 0 at ignored voxels.
        seen: bool (B, 1, *spatial), False at ignored voxels; None when all voxels count.
        log_truth: Log-probability of the truth (B, 1, *spatial), 0 at ignored voxels.
        both, predicted, true: As in ClassSums.
    """

    label: torch.Tensor
    seen: torch.Tensor | None
    log_truth: torch.Tensor
    both: torch.Tensor
    predicted: torch.Tensor
    true: torch.Tensor

    @classmethod
    def read(
        cls, logits: torch.Tensor, label: torch.Tensor, ignore_label: int | None, squares: bool
    ) -> Softmax:
        """Return the view of logits (B, K, *spatial) and integer labels (B, 1, *spatial); `squares`
        sums p^2.
        """
        seen, label = None, label.long()
        if ignore_label is not None:
            seen = label != ignore_label
            label = label * seen
        return cls(label, seen, *SoftmaxSums.apply(logits, label, seen, squares))

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return self.both.shape[1]

    @property
    def alternatives(self) -> int:
        """Number of wrong answers at a voxel, at least 1."""
        return max(1, self.outputs - 1)

    def foreground(self) -> torch.Tensor:
        """Return where the truth is no background, bool (B, 1, *spatial)."""
        return self.label > 0

    def per_voxel(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the weight (K) of each voxel's true class, (B, 1, *spatial)."""
        return weights[self.label]

    def sums(self) -> ClassSums:
        """Return the soft counts of all classes."""
        return ClassSums(self.both, self.predicted, self.true, self.true.sum(1, keepdim=True))


@dataclass(frozen=True, eq=False)
class Sigmoid:
    """Logits of regions, which may overlap.

    Attributes:
        probabilities: (B, R, *spatial), 0 at ignored voxels.
        truth: bool (B, R, *spatial), False at ignored voxels.
        seen: bool (B, 1, *spatial), False at ignored voxels; None when all voxels count.
        log_truth: Log-probability of the truth, inside or outside (B, R, *spatial), 0 at ignored
            voxels.
        squares: Sum squared probabilities.
    """

    probabilities: torch.Tensor
    truth: torch.Tensor
    seen: torch.Tensor | None
    log_truth: torch.Tensor
    squares: bool

    @classmethod
    def read(
        cls, logits: torch.Tensor, maps: torch.Tensor, ignore_label: int | None, squares: bool
    ) -> Sigmoid:
        """Return the view of logits (B, R, *spatial) and binary maps (B, R, *spatial); `squares`
        sums p^2.

        With an ignore label the maps have one channel more, the last: true where voxels do not
        count.
        """
        truth = maps.bool()
        probabilities = logits.sigmoid()
        if ignore_label is None:
            return cls(probabilities, truth, None, _log_truth(logits, truth), squares)
        seen, truth = ~truth[:, -1:], truth[:, :-1]
        return cls(
            probabilities * seen, truth & seen, seen, _log_truth(logits, truth) * seen, squares
        )

    @property
    def outputs(self) -> int:
        """Number of regions."""
        return self.truth.shape[1]

    @property
    def alternatives(self) -> int:
        """Number of wrong answers at a voxel: inside or outside."""
        return 1

    def foreground(self) -> torch.Tensor:
        """Return where the truth is inside, bool (B, R, *spatial)."""
        return self.truth

    def per_voxel(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the weight (R) of each region at every voxel, (B, R, *spatial)."""
        return weights.view(1, -1, *[1] * (self.truth.ndim - 2)).expand(self.truth.shape)

    def sums(self) -> ClassSums:
        """Return the soft counts of all regions."""
        axes = list(range(2, self.truth.ndim))
        both = (self.probabilities * self.truth).sum(axes)
        predicted = (self.probabilities.square() if self.squares else self.probabilities).sum(axes)
        if self.seen is None:
            voxels = both.new_full((len(both), 1), self.truth[0, 0].numel())
        else:
            voxels = self.seen.flatten(1).sum(1, keepdim=True).to(both.dtype)
        return ClassSums(both, predicted, self.truth.sum(axes).to(both.dtype), voxels)


def _log_truth(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return functional.logsigmoid(torch.where(truth, logits, -logits))
