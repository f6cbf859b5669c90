"""Upsampling and the convolution after it in one convolution on the coarse grid, which takes a third fewer products.

A decoder stage doubles the resolution with a transposed convolution and convolves the result, beside the skip connection, with
kernels of 3. Both are linear. So a voxel of the result is a weighted sum over a 2x2x2 window of the coarse grid, with other
weights for each of the 8 positions within a coarse voxel. On GPUs the way pays less: their convolutions are not the limit.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from nnunet_builtin.computing.devices import CHANNELS_LAST
from nnunet_builtin.networks.cpu.winograd import CONVOLVE, convolve

_VOXELS_PER_CHANNEL = 32  # on fewer, making the weights takes longer than what they save


def is_worthwhile(up: Any, conv: Any, coarse: torch.Tensor) -> bool:
    """Return whether `upsampled_convolution` applies to these layers, and is faster for features (B, C, *spatial)."""
    dimensions = coarse.ndim - 2
    return bool(
        coarse.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and up.bias is None
        and coarse.is_contiguous(memory_format=CHANNELS_LAST[dimensions])
        and up.kernel_size == up.stride == (2,) * dimensions
        and conv.kernel_size == (3,) * dimensions
        and coarse.numel() // coarse.shape[1] > _VOXELS_PER_CHANNEL * conv.out_channels
    )


def upsampled_convolution(
    up: Any, conv: Any, coarse: torch.Tensor, skip: torch.Tensor
) -> torch.Tensor:
    """Return `conv(cat([up(coarse), skip]))`.

    Args:
        up: Transposed convolution with kernels and strides of 2, without bias.
        conv: Convolution with kernels of 3 and padding.
        coarse: Features (B, C, *spatial), channels last.
        skip: Features (B, C', *spatial * 2).
    """
    middle, dimensions = up.out_channels, coarse.ndim - 2
    windows = CONVOLVE[dimensions](
        coarse, _window_weights(up.weight, conv.weight[:, :middle]), padding=1
    )
    fine = convolve(conv, skip, conv.weight[:, middle:])
    result: torch.Tensor = _AddPositions.apply(fine, windows)
    return result


def _window_weights(up: torch.Tensor, conv: torch.Tensor) -> torch.Tensor:
    """Return (positions * outputs, inputs, 2, 2, 2) of weights (inputs, middle, 2, 2, 2) and (outputs, middle, 3, 3, 3)."""
    dimensions = up.ndim - 2
    windows, corners = (2,) * dimensions, 2**dimensions
    places = torch.from_numpy(_tap_places(dimensions)).to(conv)
    spread = (conv.flatten(2) @ places).unflatten(2, (corners, corners, corners))
    spread = spread.permute(0, 2, 3, 1, 4).flatten(
        3
    )  # (outputs, positions, places, middle * sources)
    weights = spread @ up.flatten(1).T
    ordered = weights.permute(1, 0, 3, 2).reshape(-1, up.shape[0], *windows)
    return ordered.contiguous(memory_format=CHANNELS_LAST[dimensions])


@functools.cache
def _tap_places(dimensions: int) -> np.ndarray:
    """Return (taps, positions * places * sources), 1 where a tap of the fine grid falls on a place of the coarse window.

    Along an axis, the fine voxel 2i + position sees, through tap t, the fine voxel 2i + position + t - 1, which is at the
    position `source` of the coarse voxel i + step. The window of this position starts at the coarse voxel i + position - 1.
    """
    axis = np.zeros((3, 2, 2, 2), np.float32)
    for position, tap in itertools.product(range(2), range(3)):
        step, source = divmod(position + tap - 1, 2)
        axis[tap, position, step + 1 - position, source] = 1
    places = np.ones((1, 1, 1, 1), np.float32)
    for _ in range(dimensions):
        product = np.einsum("tpws,uqxr->tupqwxsr", places, axis)
        places = product.reshape([3 * len(places), *(2 * size for size in places.shape[1:])])
    return places.reshape(len(places), -1)


class _AddPositions(torch.autograd.Function):
    """Add windows (B, positions * C, *spatial + 1) to the fine grid (B, C, *spatial * 2), in place."""

    @staticmethod
    def forward(ctx: Any, fine: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(fine)
        ctx.shape = windows.shape
        for own, part in _positions(fine, windows):
            own.add_(part)
        return fine

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (fine,) = gradients
        windows = torch.empty(
            ctx.shape, dtype=fine.dtype, memory_format=CHANNELS_LAST[fine.ndim - 2]
        ).zero_()
        for own, part in _positions(fine, windows):
            part.copy_(own)
        return fine, windows


def _positions(
    fine: torch.Tensor, windows: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield, for each position within a coarse voxel, its voxels of the fine grid and its part of the windows."""
    channels = fine.shape[1]
    for index, position in enumerate(itertools.product(range(2), repeat=fine.ndim - 2)):
        spatial = [
            slice(p, p + size // 2) for p, size in zip(position, fine.shape[2:], strict=True)
        ]
        part = windows[(slice(None), slice(index * channels, (index + 1) * channels), *spatial)]
        yield fine[(slice(None), slice(None), *[slice(p, None, 2) for p in position])], part
