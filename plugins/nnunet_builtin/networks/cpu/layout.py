"""When the fast ways of CPUs apply."""

from __future__ import annotations

import torch

from nnunet_builtin.computing.devices import CHANNELS_LAST


def is_channels_last(features: torch.Tensor, dimensions: int) -> bool:
    """Return whether features (B, C, *spatial) lie on a CPU in channels-last order, and are
    computed at once.

    Compilers fuse better what they can see.
    """
    return (
        features.device.type == "cpu"
        and features.ndim == dimensions + 2
        and not torch.compiler.is_compiling()
        and features.is_contiguous(memory_format=CHANNELS_LAST[dimensions])
    )
