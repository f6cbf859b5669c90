"""Boundary loss (Kervadec et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat

from nnunet_builtin.computing import ranks
from nnunet_losses.soft import dice_ce, read

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass
class Boundary:
    """Dice + cross entropy, and the boundary loss with a weight alpha that grows.

    The boundary loss is the mean, over voxels and foreground classes or regions, of probability
    times signed distance to the boundary of the truth (arXiv 1812.07032, equation 5): the sum over
    what lies between two boundaries of how far apart they are. The distances come from the
    preprocessor `distances`.

    Args:
        schedule: `rebalance`: (1 - alpha) * (Dice + cross entropy) + alpha * boundary, alpha grows.
            `increase`: Dice + cross entropy + alpha * boundary, alpha grows. `constant`: the same,
            alpha stays at `weight`.
        weight: alpha in the first epoch.
        step: What alpha grows by in each epoch; the paper has 0.01, for 200 epochs.
        largest: Where alpha stops growing.
    """

    arrays: ClassVar[tuple[str, ...]] = ("distance",)

    schedule: Literal["rebalance", "increase", "constant"] = "rebalance"
    weight: Share = 0.01
    step: NonNegativeFloat = 0.01
    largest: Share = 0.99

    def build(
        self, *, batch_dice: bool, ignore_label: int | None = None, regions: bool = False
    ) -> BoundaryLoss:
        """Return the loss (contracts.LossBuilder); `batch_dice` concerns the Dice."""
        return BoundaryLoss(self, dice_ce(batch_dice, ignore_label, regions), ignore_label, regions)

    def alpha(self, epoch: int) -> float:
        """Return the weight of the boundary loss in an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.weight
        return max(self.weight, min(self.largest, self.weight + self.step * epoch))


class BoundaryLoss(torch.nn.Module):
    """The loss of one resolution; it hears of each epoch."""

    def __init__(
        self,
        settings: Boundary,
        region_loss: torch.nn.Module,
        ignore_label: int | None,
        regions: bool,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.region_loss = region_loss
        self.ignore_label = ignore_label
        self.regions = regions
        self.alpha = settings.alpha(0)

    def set_epoch(self, epoch: int) -> None:
        """Take the weight of an epoch (abilities.ChangesWithEpochs)."""
        self.alpha = self.settings.alpha(epoch)

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, arrays: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the loss, a scalar (contracts.LossBuilder)."""
        soft = read(logits, target, self.ignore_label, self.regions)
        work = soft.foreground * arrays["distance"] * soft.seen
        boundary = ranks.mean(work.sum(), soft.seen.sum() * work.shape[1])
        kept = 1 - self.alpha if self.settings.schedule == "rebalance" else 1.0
        value: torch.Tensor = kept * self.region_loss(logits, target) + self.alpha * boundary
        return value
