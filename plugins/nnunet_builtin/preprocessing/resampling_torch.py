"""Resampling of images and probabilities on a GPU: the matrices of `resampling`, applied by
PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunet_builtin.preprocessing.matrices import nearest_samples, spline_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence


def resample(
    channels: np.ndarray,
    out: np.ndarray,
    low_axis: int | None,
    order: int,
    order_z: int,
    device: str,
) -> None:
    """Resample every channel of (C, *spatial) into `out` (C, *shape), clipped as on CPU; one
    channel at a time.

    Args:
        channels: float32, no NaN.
        out: float32, of the new shape; it may be a view.
        low_axis: Axis to resample apart, of the three spatial ones.
        order: Spline order, of all axes or of those within slices.
        order_z: Spline order along `low_axis`.
        device: PyTorch device, for example `cuda:0`.
    """
    for channel, target in zip(channels, out, strict=True):
        volume = torch.from_numpy(np.ascontiguousarray(channel, np.float32)).to(device)
        target[...] = _resize(volume, target.shape, low_axis, order, order_z).cpu().numpy()


def _resize(
    volume: torch.Tensor, shape: Sequence[int], low_axis: int | None, order: int, order_z: int
) -> torch.Tensor:
    within = [axis for axis in (2, 1, 0) if axis != low_axis]
    if any(volume.shape[axis] != shape[axis] for axis in within):
        lowest, highest = volume.amin(within, keepdim=True), volume.amax(within, keepdim=True)
        for axis in within:
            volume = _along(volume, axis, shape[axis], order)
        volume = torch.clamp(volume, lowest, highest)
    return volume if low_axis is None else _along(volume, low_axis, shape[low_axis], order_z)


def _along(volume: torch.Tensor, axis: int, new: int, order: int) -> torch.Tensor:
    old = volume.shape[axis]
    if old == new:
        return volume
    if order == 0:
        return volume.index_select(
            axis, torch.from_numpy(nearest_samples(old, new)).to(volume.device)
        )
    matrix = torch.from_numpy(spline_matrix(old, new, order).astype(np.float32)).to(volume.device)
    return torch.movedim(torch.tensordot(matrix, volume, dims=([1], [axis])), 0, axis)
