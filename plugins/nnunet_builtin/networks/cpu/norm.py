"""Instance norm in channels-last order.

PyTorch's own ways are slow there (instance norm copies to the other order, group norm is slow backwards) or inexact (group norm
subtracts the squared mean from the mean of squares). Its batch norm is fast and exact, and the batch norm of one sample is an
instance norm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from nnunet_builtin.computing.devices import CHANNELS_LAST
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
    weight, bias = norm.weight, norm.bias
    if weight is None:
        weight, bias = features.new_ones(features.shape[1]), features.new_zeros(features.shape[1])
    normed: torch.Tensor = _InstanceNorm.apply(features, weight, bias, norm.eps)
    return normed


class _InstanceNorm(torch.autograd.Function):
    """Batch norm of each sample, written to its place in the batch: joining the results would be one more copy."""

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        normed = torch.empty_like(features)
        mean, scale = (weight.new_empty(features.shape[:2]) for _ in range(2))
        for index in range(len(features)):
            sample = slice(index, index + 1)
            out = (normed[sample], mean[index], scale[index])
            torch.native_batch_norm(
                features[sample], weight, bias, None, None, True, 0.0, epsilon, out=out
            )
        ctx.save_for_backward(features, weight, mean, scale)
        ctx.epsilon = epsilon
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, weight, mean, scale = ctx.saved_tensors
        # PyTorch crashes where features and gradients lie in different orders
        order = CHANNELS_LAST[features.ndim - 2]
        gradient = gradients[0].contiguous(memory_format=order)
        result = torch.empty_like(features)
        by_parameters = weight.new_zeros((2, len(weight)))
        for index in range(len(features)):
            sample = slice(index, index + 1)
            by_features, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
                gradient[sample],
                features[sample],
                weight,
                None,
                None,
                mean[index],
                scale[index],
                True,
                ctx.epsilon,
                [True, True, True],
            )
            result[sample] = by_features
            by_parameters += torch.stack([by_weight, by_bias])
        return result, *by_parameters, None
