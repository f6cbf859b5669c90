"""A network that was built is tried on one batch before it is trained: whether it returns what a
training needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from nnunet_builtin.computing.trial import heads_on_zeros
from nnunet_builtin.losses.deep_supervision import targets
from nnunet_core.errors import NnunetError, TrainingError


def count_heads(
    network: torch.nn.Module,
    shape: Sequence[int],
    outputs: int,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]],
) -> int:
    """Apply a network to a batch, without gradients; return the number of its heads.

    Args:
        network: On its device.
        shape: Of the batch, (B, C, *patch).
        outputs: Channels of the logits.
        device: Of the network.
        precision: Context of the forward pass.

    Raises:
        TrainingError: The network cannot be applied to the batch, or returned something else than
            logits of the full resolution and, perhaps, of others that labels can be brought to.
    """
    try:
        with torch.no_grad(), heads_on_zeros(network, shape, device, precision) as heads:
            _check(heads, shape, outputs)
            return len(heads)
    except (NnunetError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise TrainingError(
            f"The network {type(network).__name__} cannot be applied to a batch of shape "
            f"{tuple(shape)} (samples, channels, voxels): {type(error).__name__}: {error}. Look at "
            "how it was built, and at the patch size of the plans."
        ) from error


def _check(heads: Sequence[torch.Tensor], shape: Sequence[int], outputs: int) -> None:
    samples, _, *patch = shape
    for index, head in enumerate(heads):
        expected = [samples, outputs, *(patch if index == 0 else head.shape[2:])]
        if list(head.shape) != expected or head.ndim != len(shape):
            raise TrainingError(
                f"Head {index} of the network has the shape {tuple(head.shape)} for images "
                f"{tuple(shape)}. Expected is ({samples}, {outputs}, *voxels), {outputs} outputs "
                "for these labels (spec.output_channels), the first head with all "
                f"{' x '.join(map(str, patch))} voxels."
            )
        if not bool(head.isfinite().all()):
            raise TrainingError(
                f"Head {index} of the network is infinite or NaN for images of zeros. Look at its "
                "initial weights and its norms, or train with --precision float32."
            )
    # raises where labels cannot be brought to a resolution
    targets(torch.empty(1, 1, *patch, device="meta"), [head.shape[2:] for head in heads])
