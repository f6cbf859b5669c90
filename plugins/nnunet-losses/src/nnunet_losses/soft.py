"""What logits say about the truth, for labels that exclude each other and for regions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from nnunet_builtin.losses.dice_ce import DiceCE


@dataclass(frozen=True, eq=False)
class Soft:
    """Probabilities beside the truth; K is the number of classes, or twice that of regions.

    Attributes:
        probabilities: (B, K, *spatial). Of R regions, the first R channels are those of the
            outside: a region is a choice between two classes.
        truth: bool, the same shape; False in every channel of an ignored voxel.
        log_truth: Log-probability of the truth, (B, 1, *spatial) or of each region (B, R,
            *spatial).
        inside: Whether the truth is no background, bool, shaped as `log_truth`.
        seen: bool (B, 1, *spatial), False at voxels that do not count.
        backgrounds: How many of the channels, the first ones, are background.
    """

    probabilities: torch.Tensor
    truth: torch.Tensor
    log_truth: torch.Tensor
    inside: torch.Tensor
    seen: torch.Tensor
    backgrounds: int

    @property
    def foreground(self) -> torch.Tensor:
        """Probabilities of the foreground classes or regions (B, K, *spatial)."""
        return self.probabilities[:, self.backgrounds :]


def read(
    logits: torch.Tensor, target: torch.Tensor, ignore_label: int | None, regions: bool
) -> Soft:
    """Return logits (B, K, *spatial) and their target (contracts.LossBuilder) as probabilities, in
    float32 or better.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if regions:
        return _read_regions(logits, target, ignore_label)
    label = target.long()
    seen = (
        torch.ones_like(label, dtype=torch.bool) if ignore_label is None else label.ne(ignore_label)
    )
    label = label * seen
    logs = functional.log_softmax(logits, dim=1)
    truth = torch.zeros_like(logs, dtype=torch.bool).scatter_(1, label, seen)
    return Soft(logs.exp(), truth, logs.gather(1, label), label > 0, seen, 1)


def _read_regions(logits: torch.Tensor, target: torch.Tensor, ignore_label: int | None) -> Soft:
    truth, seen = target.bool(), torch.ones_like(target[:, :1], dtype=torch.bool)
    if ignore_label is not None:
        truth, seen = truth[:, :-1], ~truth[:, -1:]
    inside = logits.sigmoid()
    return Soft(
        torch.cat([1 - inside, inside], dim=1),
        torch.cat([~truth & seen, truth & seen], dim=1),
        functional.logsigmoid(torch.where(truth, logits, -logits)),
        truth,
        seen,
        truth.shape[1],
    )


def dice_ce(batch_dice: bool, ignore_label: int | None, regions: bool) -> torch.nn.Module:
    """Return the default loss, the soft Dice and cross entropy of nnU-Net; for regions the binary
    one.
    """
    loss = DiceCE(labels="any", smooth=0.0 if regions else 1e-5)
    return loss.build(batch_dice=batch_dice, ignore_label=ignore_label, regions=regions)
