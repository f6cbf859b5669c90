"""Skeleton recall loss (Kirchhoff et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from nnunet_builtin.computing import ranks
from nnunet_losses.soft import Soft, dice_ce, read

_NO_DIVISION_BY_ZERO = 1e-8


@dataclass
class SkeletonRecall:
    """Dice + cross entropy - weight * how much of the skeletons is found.

    The recall of a class is the sum of its probability over the tube around its skeleton, divided
    by the voxels of the tube (arXiv 2404.03010, equation 2); the loss takes its mean over classes
    or regions. The tubes come from the preprocessor `skeletons`.

    Args:
        weight: Of the recall; the paper has 1.
        smooth: Added to both sides of the fraction; a class without a skeleton in the patch has
            recall 1 then, and no gradient.
    """

    arrays: ClassVar[tuple[str, ...]] = ("skeleton",)

    weight: PositiveFloat = 1.0
    smooth: NonNegativeFloat = 1e-5

    def build(
        self, *, batch_dice: bool, ignore_label: int | None = None, regions: bool = False
    ) -> Callable[..., torch.Tensor]:
        """Return the loss (contracts.LossBuilder); `batch_dice` also takes the recall of the whole
        batch.
        """
        region_loss = dice_ce(batch_dice, ignore_label, regions)

        def loss(
            logits: torch.Tensor, target: torch.Tensor, arrays: Mapping[str, torch.Tensor]
        ) -> torch.Tensor:
            soft = read(logits, target, ignore_label, regions)
            recall = self._recall(soft, arrays["skeleton"], batch_dice)
            value: torch.Tensor = region_loss(logits, target) - self.weight * recall
            return value

        return loss

    def _recall(self, soft: Soft, skeleton: torch.Tensor, batch_dice: bool) -> torch.Tensor:
        """Return the mean recall; a share of the mean of all processes (`ranks.mean`)."""
        axes = list(range(2, skeleton.ndim))
        tubes = _tubes(skeleton, soft) & soft.seen
        sums = torch.stack([(soft.foreground * tubes).sum(axes), tubes.sum(axes)])
        if batch_dice:
            sums = ranks.total(sums.sum(1, keepdim=True))
        found, whole = sums
        recalls = (found + self.smooth) / (whole + self.smooth).clamp(min=_NO_DIVISION_BY_ZERO)
        return ranks.mean(recalls.sum(), recalls.new_tensor(recalls.numel()))


def _tubes(skeleton: torch.Tensor, soft: Soft) -> torch.Tensor:
    """Return the tube of each foreground class or region, bool (B, K, *spatial)."""
    classes = soft.foreground.shape[1]
    if soft.backgrounds > 1:  # several regions have a map each
        return (skeleton > 0).expand(soft.foreground.shape)
    values = torch.arange(1, classes + 1, device=skeleton.device)
    return skeleton == values.view(1, -1, *[1] * (skeleton.ndim - 2))
