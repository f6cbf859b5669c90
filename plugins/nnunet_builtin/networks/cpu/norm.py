"""Instance norm in channels-last order.

PyTorch's own ways are slow there (instance norm copies to the other order, group norm is slow
backwards) or inexact (group norm subtracts the squared mean from the mean of squares). Its batch
norm is fast and exact, and the batch norm of one sample is an instance norm.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from nnunet_builtin.networks.cpu.layout import is_channels_last


class InstanceNorm2d(nn.InstanceNorm2d):
    """PyTorch's instance norm, without running statistics."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C, *spatial) to the same shape."""
        if not is_channels_last(features, 2):
            return super().forward(features)
        return _by_samples(self, features)


class InstanceNorm3d(nn.InstanceNorm3d):
    """PyTorch's instance norm, without running statistics."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C, *spatial) to the same shape."""
        if not is_channels_last(features, 3):
            return super().forward(features)
        return _by_samples(self, features)


def _by_samples(
    norm: nn.InstanceNorm2d | nn.InstanceNorm3d, features: torch.Tensor
) -> torch.Tensor:
    samples = [
        functional.batch_norm(sample, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
        for sample in features.split(1)
    ]
    return samples[0] if len(samples) == 1 else torch.cat(samples)
