"""What builds losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


class LossBuilder(Protocol):
    """Builds the loss of one resolution; the trainer weights the resolutions."""

    def build(
        self, *, batch_dice: bool, ignore_label: int | None = None, regions: bool = False
    ) -> Callable[..., torch.Tensor]:
        """Return loss(logits, target) -> scalar, or loss(logits, target, arrays) of a builder that `UsesArrays`.

        logits: (B, K, *spatial). target: (B, 1, *spatial) integers, or for R regions (B, R, *spatial) bool maps. Regions
        with an ignore label have one map more, the last one: (B, R + 1, *spatial), true where voxels do not count (they
        may be of any region, so that their own maps cannot say it). Voxels with the ignore label have zero gradient.
        A loss that changes in the course of a training has `set_epoch(epoch)`, which is called before each epoch, counted
        from 0.
        """
        ...


@runtime_checkable
class UsesArrays(Protocol):
    """A loss builder that needs extra arrays of the prepared cases (docs: how-to/extra-data).

    Its loss gets {name: (B, K, *spatial)} of all arrays that the cases have, on the logits' device and at their resolution:
    float32 averages of arrays like images, int16 samples of arrays like labels, 0 outside the volume.

    Attributes:
        arrays: Names that must be there, such as `arrays = ("distance",)` in the class; a training whose cases lack one does
            not start.
    """

    arrays: tuple[str, ...]


def arrays_of(loss: Any) -> tuple[str, ...]:
    """Return the names of the extra arrays that a loss builder needs; empty for most."""
    return tuple(loss.arrays) if isinstance(loss, UsesArrays) else ()
