"""What builds losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class LossBuilder(Protocol):
    """Builds the loss of one resolution; the trainer weights the resolutions."""

    def build(
        self, *, batch_dice: bool, ignore_label: int | None = None, regions: bool = False
    ) -> Callable[..., torch.Tensor]:
        """Return loss(logits, target) -> scalar, or loss(logits, target, arrays) of a builder that
        has `abilities.UsesArrays`.

        logits: (B, K, *spatial). target: (B, 1, *spatial) integers, or for R regions (B, R,
        *spatial) bool maps. Regions with an ignore label have one map more, the last one: (B, R +
        1, *spatial), true where voxels do not count (they may be of any region, so that their own
        maps cannot say it). Voxels with the ignore label have zero gradient. A loss that changes in
        the course of a training has `set_epoch(epoch)`, which is called before each epoch, counted
        from 0.
        """
        ...
