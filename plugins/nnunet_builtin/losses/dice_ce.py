"""Losses: an overlap term and a voxel-wise term, for classes and for regions (spec: training,
sections 2 and 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import nn

from nnunet_builtin.computing import ranks
from nnunet_builtin.losses import overlap
from nnunet_builtin.losses.deep_supervision import at_least_float32
from nnunet_builtin.losses.likelihoods import Sigmoid, Softmax
from nnunet_core.errors import UsageError

Share = Annotated[float, Field(gt=0, le=1)]
Balance = Annotated[float, Field(ge=0, le=1)]
Smooth = Annotated[float, Field(ge=0, le=0.5)]
ClassWeights = Annotated[list[NonNegativeFloat], Field(min_length=1)]

_MEASURES = {
    "squared_dice": overlap.squared_dice,
    "generalised_dice": overlap.generalised_dice,
    "mcc": overlap.mcc,
}


def region_maps(
    label: torch.Tensor, regions: Sequence[Sequence[int]], ignore_label: int | None = None
) -> torch.Tensor:
    """Return the binary maps that losses for regions compare with.

    Args:
        label: Integers (B, 1, *spatial).
        regions: Label values of each region.
        ignore_label: Value of voxels that do not count; adds a last channel that is true there.

    Returns:
        bool (B, R, *spatial), or (B, R + 1, *spatial) with an ignore label.
    """
    unions = [*regions, *([] if ignore_label is None else [(ignore_label,)])]
    return torch.cat(
        [torch.isin(label, torch.tensor(union, device=label.device)) for union in unions], dim=1
    )


class DiceCE:
    """ce_weight * (cross entropy or a relative of it) - dice_weight * (soft Dice or a relative of
    it).

    For labels that exclude each other probabilities are a softmax; for regions each is a sigmoid,
    cross entropy is the binary one, and every region counts. Ignored voxels count nowhere. With
    several processes the gradient is that of the joined batch; only top_k picks in each process by
    itself.

    Args:
        labels: `exclusive`, `regions` or `any`: the datasets that the loss is for.
        dice_weight, ce_weight: Of the two terms; 0 leaves a term out.
        transition, final_dice_weight, final_ce_weight: Two epochs between which the weights go to
            these, evenly; null keeps the weights.
        overlap: `dice`, `squared_dice` (squared probabilities in the denominator),
            `generalised_dice` (classes weighted by 1 / voxels) or `mcc` (Matthews correlation
            coefficient).
        smooth: Added to numerator and denominator of the overlap.
        background: Count the background in the overlap.
        batch_dice: Take the overlap of the whole batch; null follows the plans.
        tversky_alpha, tversky_beta: Weights of false positives and false negatives in `dice`; 0.5
            and 0.5 are the Dice.
        top_k: Share of the voxels, the hardest ones, that the cross entropy is the mean of; null
            takes all.
        focal_gamma: Multiplies each voxel's cross entropy by (1 - p) ** gamma, with p the
            probability of the truth.
        focal_smooth: With s > 0 the cross entropy and p are of p (1 - s) + (1 - p) s / (K - 1) + s
            for K classes (2 for a region), so that hopeless voxels have a bounded loss; v1's focal
            loss has 1e-5.
        focal_alpha: Multiplies it by alpha in the foreground and 1 - alpha in the background; null
            by nothing.
        class_weights: One weight per class, background first, or per region; the cross entropy
            becomes a weighted mean, and a plain mean of weighted values with top_k.
    """

    def __init__(
        self,
        labels: Literal["exclusive", "regions", "any"] = "exclusive",
        dice_weight: NonNegativeFloat = 1.0,
        ce_weight: NonNegativeFloat = 1.0,
        overlap: Literal["dice", "squared_dice", "generalised_dice", "mcc"] = "dice",
        smooth: NonNegativeFloat = 1e-5,
        background: bool = False,
        batch_dice: bool | None = None,
        tversky_alpha: NonNegativeFloat = 0.5,
        tversky_beta: NonNegativeFloat = 0.5,
        top_k: Share | None = None,
        focal_gamma: NonNegativeFloat = 0.0,
        focal_smooth: Smooth = 0.0,
        focal_alpha: Balance | None = None,
        class_weights: ClassWeights | None = None,
        transition: tuple[NonNegativeInt, NonNegativeInt] | None = None,
        final_dice_weight: NonNegativeFloat = 1.0,
        final_ce_weight: NonNegativeFloat = 1.0,
    ) -> None:
        self.labels = labels
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.overlap = overlap
        self.smooth = smooth
        self.background = background
        self.batch_dice = batch_dice
        self.tversky_alpha = tversky_alpha
        self.tversky_beta = tversky_beta
        self.top_k = top_k
        self.focal_gamma = focal_gamma
        self.focal_smooth = focal_smooth
        self.focal_alpha = focal_alpha
        self.class_weights = class_weights
        self.transition = transition
        self.final_dice_weight = final_dice_weight
        self.final_ce_weight = final_ce_weight

    def build(
        self, *, batch_dice: bool, ignore_label: int | None = None, regions: bool = False
    ) -> nn.Module:
        """Return the loss of logits (B, K, *spatial) and labels (B, 1, *spatial)
        (contracts.LossBuilder).

        For regions the target is binary maps (B, R, *spatial); with an ignore label they have one
        channel more, the last, which is 1 where voxels do not count (`region_maps`). Calling the
        loss raises UsageError when the number of `class_weights` is not that of the classes.

        Raises:
            UsageError: The loss is not for this kind of labels, or both weights are 0.
        """
        if regions and self.labels == "exclusive":
            raise UsageError(
                "This loss is for labels that exclude each other; the dataset has regions. Use "
                "--loss dice_bce."
            )
        if not regions and self.labels == "regions":
            raise UsageError(
                "This loss is for regions; the labels of the dataset exclude each other. Use "
                "--loss dice_ce."
            )
        if not self.dice_weight and not self.ce_weight:
            raise UsageError(
                "loss.dice_weight and loss.ce_weight are both 0, so there is nothing to learn "
                "from. Set one above 0."
            )
        if self.transition is not None and self.transition[0] >= self.transition[1]:
            raise UsageError(
                f"loss.transition={list(self.transition)} must be two epochs, the second after the "
                "first."
            )
        if self.transition is not None and not self.final_dice_weight and not self.final_ce_weight:
            raise UsageError(
                "loss.final_dice_weight and loss.final_ce_weight are both 0. Set one above 0."
            )
        return _Loss(
            self, batch_dice if self.batch_dice is None else self.batch_dice, ignore_label, regions
        )


class _Loss(nn.Module):
    def __init__(
        self, settings: DiceCE, batch_dice: bool, ignore_label: int | None, regions: bool
    ) -> None:
        super().__init__()
        self.settings = settings
        self.batch_dice = batch_dice
        self.ignore_label = ignore_label
        self.view: type[Softmax] | type[Sigmoid] = Sigmoid if regions else Softmax
        self.dice_weight, self.ce_weight = settings.dice_weight, settings.ce_weight

    def set_epoch(self, epoch: int) -> None:
        """Take the weights of an epoch (contracts.LossBuilder); as v1's, they follow the transition
        by one epoch.
        """
        settings = self.settings
        if settings.transition is None:
            return
        first, last = settings.transition
        share = min(1.0, max(0.0, (epoch - 1 - first) / (last - first)))
        self.dice_weight = settings.dice_weight + share * (
            settings.final_dice_weight - settings.dice_weight
        )
        self.ce_weight = settings.ce_weight + share * (
            settings.final_ce_weight - settings.ce_weight
        )

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            view = self.view.read(
                logits, target, self.ignore_label, self.settings.overlap == "squared_dice"
            )
            value = logits.new_zeros(())
            if self.ce_weight:
                value = value + self.ce_weight * self._cross_entropy(view)
            if self.dice_weight:
                value = value - self.dice_weight * self._overlap(view)
            return value

    def _cross_entropy(self, view: Softmax | Sigmoid) -> torch.Tensor:
        losses = self._focal(view)
        counted = None if view.seen is None else view.seen.expand(losses.shape)
        weights = counted
        if self.settings.class_weights is not None:
            weights = (
                self._class_weights(view)
                if counted is None
                else self._class_weights(view) * counted
            )
            losses = losses * weights
        if self.settings.top_k is not None:
            losses, weights = _hardest(losses, counted, self.settings.top_k), None
        weight = (
            losses.new_full((), losses.numel())
            if weights is None
            else weights.sum().to(losses.dtype)
        )
        return ranks.mean(losses.sum(), weight)

    def _focal(self, view: Softmax | Sigmoid) -> torch.Tensor:
        """Return each voxel's cross entropy, multiplied as focal loss does, shaped as
        view.log_truth; 0 if ignored.
        """
        log_truth, smooth = view.log_truth, self.settings.focal_smooth
        if smooth:
            log_truth = torch.log1p(log_truth.expm1() * (1 - smooth - smooth / view.alternatives))
        losses = -log_truth
        if self.settings.focal_gamma:
            doubt = -log_truth.expm1()
            losses = (
                losses * doubt.clamp(min=torch.finfo(doubt.dtype).tiny) ** self.settings.focal_gamma
            )
        if self.settings.focal_alpha is not None:
            losses = losses * torch.where(
                view.foreground(), self.settings.focal_alpha, 1 - self.settings.focal_alpha
            )
        return losses

    def _class_weights(self, view: Softmax | Sigmoid) -> torch.Tensor:
        found, outputs = self.settings.class_weights or [], view.outputs
        if len(found) != outputs:
            raise UsageError(
                f"loss.class_weights has {len(found)} values; the network has {outputs} outputs. "
                "Give one weight per class with the background first, or one per region."
            )
        return view.per_voxel(view.log_truth.new_tensor(found))

    def _overlap(self, view: Softmax | Sigmoid) -> torch.Tensor:
        sums = view.sums()
        if self.batch_dice:
            sums = sums.of_batch()
        if self.view is Softmax and not self.settings.background and sums.both.shape[1] > 1:
            sums = sums.foreground()
        if self.settings.overlap == "dice":
            alpha, beta = self.settings.tversky_alpha, self.settings.tversky_beta
            score = overlap.tversky(sums, self.settings.smooth, alpha, beta)
        else:
            score = _MEASURES[self.settings.overlap](sums, self.settings.smooth)
        counted = (sums.voxels > 0).to(score.dtype)
        return ranks.mean((score * counted).sum(), counted.sum() * score.shape[1])


def _hardest(losses: torch.Tensor, counted: torch.Tensor | None, share: float) -> torch.Tensor:
    """Return the largest `share` of the losses of counted voxels, at least one if any counts; the
    others are 0.
    """
    number = losses.numel() if counted is None else int(counted.sum())
    return losses.flatten().topk(min(number, max(1, int(number * share))), sorted=False).values
