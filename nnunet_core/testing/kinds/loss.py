"""Checks of losses."""

from __future__ import annotations

from nnunet_core.errors import UsageError
from nnunet_core.testing.check import Subject, check, require, skip


@check("loss")
def loss_is_a_finite_number(subject: Subject) -> None:
    """The loss of a batch is one finite floating-point number, in 2D and in 3D."""
    import torch

    try:
        loss = subject.build().build(batch_dice=False)
    except UsageError as refused:
        skip(f"It is not for classes that exclude each other: {refused}")
    for spatial in ((6, 5), (4, 6, 5)):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(2, 3, *spatial, generator=generator)
        target = torch.randint(0, 3, (2, 1, *spatial), generator=generator)
        value = loss(logits, target)
        require(
            isinstance(value, torch.Tensor) and value.ndim == 0 and value.is_floating_point(),
            f"The loss of logits {tuple(logits.shape)} is {value!r}; it must be a scalar tensor.",
        )
        require(
            bool(torch.isfinite(value)),
            f"The loss of logits {tuple(logits.shape)} is {float(value)}; it must be finite.",
        )
