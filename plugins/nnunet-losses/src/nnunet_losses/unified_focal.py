"""Unified focal loss (Yeung et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat

from nnunet_builtin.computing import ranks
from nnunet_losses.soft import Soft, read

Share = Annotated[float, Field(ge=0, le=1)]
Power = Annotated[float, Field(ge=0, lt=1)]

_SMALLEST = 1e-7  # of what has a power below 1, whose slope at 0 is infinite


@dataclass
class UnifiedFocal:
    """weight * modified focal loss + (1 - weight) * modified focal Tversky loss.

    With p the probability of the truth at a voxel, TI = TP / (TP + delta FN + (1 - delta) FP) of a
    class (doi 10.1016/j.compmedimag.2021.102026; the powers and the places of delta are those of
    the authors' code):

    - focal: the mean over voxels of -delta log p in the foreground and of
      -(1 - delta) (1 - p) ** gamma log p in the background,
    - focal Tversky: the mean over all classes of (1 - TI) ** (1 - gamma) for foreground ones and of
      1 - TI for the background.

    So easy background counts less, and foreground that is hardly found, more. gamma = 0 is weighted
    cross entropy and Tversky loss; with delta = 0.5, half the cross entropy and 1 - Dice. A region
    is a class with a background of its own.

    Args:
        weight: Lambda: of the voxel-wise term against the overlap.
        delta: Of missed foreground against false alarms.
        gamma: How much easy voxels are suppressed, and badly found classes enhanced.
        symmetric: Both powers for every class.
        smooth: Added to both sides of TI.
    """

    weight: Share = 0.5
    delta: Share = 0.6
    gamma: Power = 0.5
    symmetric: bool = False
    smooth: NonNegativeFloat = 1e-5

    def build(
        self, *, batch_dice: bool, ignore_label: int | None = None, regions: bool = False
    ) -> Callable[..., torch.Tensor]:
        """Return the loss (contracts.LossBuilder); `batch_dice` takes TI of the whole batch."""

        def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            soft = read(logits, target, ignore_label, regions)
            overlap = self._focal_tversky(soft, batch_dice)
            return self.weight * self._focal(soft) + (1 - self.weight) * overlap

        return loss

    def _focal(self, soft: Soft) -> torch.Tensor:
        losses, inside = -soft.log_truth, soft.inside
        if self.gamma:
            doubt = -soft.log_truth.expm1()
            focused = losses * doubt.clamp(min=torch.finfo(doubt.dtype).tiny) ** self.gamma
            losses = focused if self.symmetric else torch.where(inside, losses, focused)
        losses = losses * torch.where(inside, self.delta, 1 - self.delta) * soft.seen
        return ranks.mean(losses.sum(), soft.seen.sum() * losses.shape[1])

    def _focal_tversky(self, soft: Soft, batch_dice: bool) -> torch.Tensor:
        axes = list(range(2, soft.truth.ndim))
        found, truth = soft.probabilities * soft.seen, soft.truth
        sums = torch.stack([(found * truth).sum(axes), found.sum(axes), truth.sum(axes)])
        if batch_dice:
            sums = ranks.total(sums.sum(1, keepdim=True))
        tp, fp, fn = sums[0], sums[1] - sums[0], sums[2] - sums[0]
        size = tp + self.delta * fn + (1 - self.delta) * fp
        missing = 1 - (tp + self.smooth) / (size + self.smooth).clamp(min=_SMALLEST)
        enhanced = missing.clamp(min=_SMALLEST) ** (1 - self.gamma)
        if not self.symmetric:
            first = soft.backgrounds
            enhanced = torch.cat([missing[:, :first], enhanced[:, first:]], dim=1)
        return ranks.mean(enhanced.sum(), enhanced.new_tensor(enhanced.numel()))
