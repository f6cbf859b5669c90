"""Convolutions of single volumes, which windows of predictions often are.

PyTorch (2.13) leaves them to a general routine in float32, unless channels times the first two
axes have more than 20,480 voxels: in the deep layers of any network, and everywhere in a small one.
It takes 3 to 20 times as long as oneDNN, which computes batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.networks.cpu.layout import is_channels_last

_ONES, _ZEROS = (1, 1, 1), (0, 0, 0)


class Conv3d(nn.Conv3d):
    """PyTorch's convolution."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C, *spatial) to (B, C', *spatial)."""
        conv: Any = self  # its padding are numbers, see `is_possible`
        return convolve(features, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation)


class ConvTranspose3d(nn.ConvTranspose3d):
    """PyTorch's transposed convolution, whose kernels do not overlap."""

    def forward(self, features: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Map (B, C, *spatial) to (B, C', *spatial * stride)."""
        if not is_missed(features) or output_size is not None:
            return super().forward(features, output_size)
        return _spread(features, self.weight, self.bias)


def convolve(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = _ONES,
    padding: Sequence[int] = _ZEROS,
    dilation: Sequence[int] = _ONES,
) -> torch.Tensor:
    """Return what `torch.nn.functional.conv3d` returns, features (B, C', *spatial)."""
    if not is_missed(features):
        return functional.conv3d(features, weight, bias, stride, padding, dilation)
    found: torch.Tensor = torch.mkldnn_convolution(
        features, weight, bias, padding, stride, dilation, 1
    )
    return found


def is_possible(conv: nn.Conv3d | nn.ConvTranspose3d, runtime: ResolvedRuntime) -> bool:
    """Return whether there is a faster way for a convolution that is computed in a runtime."""
    return (
        runtime.dtype == torch.float32
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and (_is_spread(conv) if conv.transposed else _has_neighbours(conv))
    )


def is_missed(features: torch.Tensor) -> bool:
    """Return whether PyTorch may take its general routine for features (B, C, *spatial)."""
    return (
        len(features) == 1
        and features.dtype == torch.float32
        and is_channels_last(features, len(_ONES))
        and torch.backends.mkldnn.is_available()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _has_neighbours(conv: nn.Conv3d | nn.ConvTranspose3d) -> bool:
    """Return whether a kernel is more than a voxel, which either way is a product of matrices."""
    return conv.kernel_size != _ONES and not isinstance(conv.padding, str)


def _is_spread(conv: nn.Conv3d | nn.ConvTranspose3d) -> bool:
    """Return whether each voxel becomes a block of its own."""
    return (
        conv.kernel_size == conv.stride
        and conv.padding == conv.output_padding == _ZEROS
        and conv.dilation == _ONES
    )


def _spread(
    features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return (1, C', *spatial * kernel) of (1, C, *spatial) and (C, C', *kernel): a product of
    matrices.
    """
    outputs, *kernel = weight.shape[1:]
    sizes = features.shape[2:]
    voxels = features[0].permute(1, 2, 3, 0).flatten(0, 2)  # (voxels, C)
    blocks = (voxels @ weight.permute(0, 2, 3, 4, 1).flatten(1)).view(*sizes, *kernel, outputs)
    if bias is not None:
        blocks = blocks.add_(bias)
    shape = [size * step for size, step in zip(sizes, kernel, strict=True)]
    fine = blocks.permute(0, 3, 1, 4, 2, 5, 6).reshape(1, *shape, outputs)
    return fine.permute(0, 4, 1, 2, 3)  # a view whose strides are in channels-last order
