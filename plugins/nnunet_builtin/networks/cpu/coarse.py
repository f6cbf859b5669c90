"""Upsampling and the convolution after it in one convolution on the coarse grid, which takes a
third fewer products.

A decoder stage doubles the resolution with a transposed convolution and convolves the result,
beside the skip connection, with kernels of 3. Both are linear. So a voxel of the result is a
weighted sum over a 2x2x2 window of the coarse grid, with other weights for each of the 8 positions
within a coarse voxel. On GPUs the way pays less: their convolutions are not the limit.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunet_builtin.computing.devices import CHANNELS_LAST
from nnunet_builtin.networks import unet
from nnunet_builtin.networks.cpu.layout import is_channels_last
from nnunet_builtin.networks.cpu.winograd import CONVOLVE, convolve, is_possible

_VOXELS_PER_CHANNEL = 32  # on fewer, making the weights takes longer than what they save


class Join(unet.Join):
    """A step of the decoder that upsamples and convolves in one, unless somebody watches its
    layers.
    """

    def forward(
        self, coarse: torch.Tensor, skip: torch.Tensor, up: nn.Module, stage: nn.Module
    ) -> torch.Tensor:
        """Return what `unet.Join` returns."""
        conv, *others = _layers(stage)
        # layers that become one are not called, and so would their hooks not be
        if not is_worthwhile(up, conv, coarse) or any(map(_has_hooks, (up, *stage.modules()))):
            return super().forward(coarse, skip, up, stage)
        features = upsampled_convolution(up, conv, coarse, skip)
        for layer in others:
            features = layer(features)
        return features


def _layers(module: nn.Module) -> list[nn.Module]:
    """Return what a sequence of sequences calls, in order."""
    if not isinstance(module, nn.Sequential):
        return [module]
    return [layer for part in module for layer in _layers(part)]


def _has_hooks(module: nn.Module) -> bool:
    """Return whether a call of a module calls others, as `torch.nn.Module.__call__` asks it."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or nn.modules.module._has_any_global_hook()
    )


def is_worthwhile(up: Any, conv: Any, coarse: torch.Tensor) -> bool:
    """Return whether `upsampled_convolution` applies to these layers, and is faster for features
    (B, C, *spatial).
    """
    dimensions = coarse.ndim - 2
    return bool(
        is_channels_last(coarse, dimensions)
        and isinstance(up, nn.ConvTranspose2d | nn.ConvTranspose3d)
        and isinstance(conv, nn.Conv2d | nn.Conv3d)
        and _doubles(up)
        and is_possible(conv)
        and coarse.numel() // coarse.shape[1] > _VOXELS_PER_CHANNEL * conv.out_channels
    )


def _doubles(up: nn.ConvTranspose2d | nn.ConvTranspose3d) -> bool:
    """Return whether each voxel becomes a block of two per axis, without a bias."""
    ones = (1,) * len(up.kernel_size)
    return (
        up.kernel_size == up.stride == (2,) * len(ones)
        and up.padding == up.output_padding == (0,) * len(ones)
        and up.dilation == ones
        and up.groups == 1
        and up.bias is None
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
        coarse, _window_weights(up.weight, conv.weight[:, :middle]), padding=conv.padding
    )
    fine = convolve(conv, skip, conv.weight[:, middle:])
    result: torch.Tensor = _AddPositions.apply(fine, windows)
    return result


def _window_weights(up: torch.Tensor, conv: torch.Tensor) -> torch.Tensor:
    """Return (positions * outputs, inputs, 2, 2, 2) of weights (inputs, middle, 2, 2, 2) and
    (outputs, middle, 3, 3, 3).
    """
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
    """Return (taps, positions * places * sources), 1 where a tap of the fine grid falls on a place
    of the coarse window.

    Along an axis, the fine voxel 2i + position sees, through tap t, the fine voxel 2i + position +
    t - 1, which is at the position `source` of the coarse voxel i + step. The window of this
    position starts at the coarse voxel i + position - 1.
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
    """Add windows (B, positions * C, *spatial + 1) to the fine grid (B, C, *spatial * 2), in
    place.
    """

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
    """Yield, for each position within a coarse voxel, its voxels of the fine grid and its part of
    the windows.
    """
    channels = fine.shape[1]
    for index, position in enumerate(itertools.product(range(2), repeat=fine.ndim - 2)):
        spatial = [
            slice(p, p + size // 2) for p, size in zip(position, fine.shape[2:], strict=True)
        ]
        part = windows[(slice(None), slice(index * channels, (index + 1) * channels), *spatial)]
        yield fine[(slice(None), slice(None), *[slice(p, None, 2) for p in position])], part
