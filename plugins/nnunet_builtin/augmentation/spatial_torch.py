"""The spatial step on tensors of any device: cubic images and voted labels, as `spatial` makes them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from nnunet_builtin.augmentation.geometry import (
    centre_window,
    placement,
    scaling_matrix,
    smoothing_matrices,
)

if TYPE_CHECKING:
    from nnunet_builtin.augmentation.decisions import Draw, Elastic

_NO_VALUE = -32768
_BLOCK = 32
_NEGLIGIBLE = 1e-9  # weights below vanish in float32


def move(
    draw: Draw, images: torch.Tensor, maps: torch.Tensor, patch: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Deform, rotate, scale and crop the last axes about their centre: `spatial.move` on tensors."""
    axes = len(patch)
    size = images.shape[-axes:]
    if draw.angles is None and draw.scale is None and draw.elastic is None:
        window: tuple[Any, ...] = (..., *centre_window(size, patch))
        return images[window].clone(), maps[window].clone()
    matrix, offset = placement(draw, size, patch)
    planes, map_planes = images.reshape(-1, *size), maps.reshape(-1, *size)
    where = _points(draw.elastic, matrix, offset, size, patch, images.device)
    if draw.angles is None and draw.elastic is None:
        factors = matrix.diagonal()
        weights = [
            scaling_matrix(*sizes) for sizes in zip(size, patch, factors, offset, strict=True)
        ]
        new_images = products(planes, weights)
    else:
        new_images = cubic(planes, where)
    new_maps = _voted(map_planes, where)
    return new_images.reshape(*images.shape[:-axes], *patch), new_maps.reshape(
        *maps.shape[:-axes], *patch
    )


def cubic(images: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Interpolate by cubic splines, 0 outside, as SciPy does.

    A sum of four cubic weights is two linear interpolations between pairs of them: a cubic value is the weighted mean
    of eight (in planes four) linear ones at shifted points.

    Args:
        images: float32 (K, *size).
        where: float32 (axes, *patch), voxels.

    Returns:
        float32 (K, *patch).
    """
    size = images.shape[1:]
    prefilters = [ndimage.spline_filter1d(np.eye(n), 3, axis=1) for n in size]
    coefficients = products(images, prefilters)
    for axis, n in enumerate(size):  # one more on either side, mirrored at the last voxel
        index = torch.tensor([min(1, n - 1), *range(n), max(0, n - 2)], device=images.device)
        coefficients = coefficients.index_select(axis + 1, index)
    pairs = [_linear_pairs(points, n) for points, n in zip(where, size, strict=True)]
    result = torch.zeros((len(images), *where.shape[1:]), device=images.device)
    for corner in itertools.product(*pairs):
        grid = torch.stack([place for place, _ in reversed(corner)], dim=-1)
        values = functional.grid_sample(coefficients[None], grid[None], align_corners=True)[0]
        result += values * math.prod(weight for _, weight in corner)
    return result * _inside(where, size)


def _linear_pairs(points: torch.Tensor, voxels: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return, for the two lower and the two upper of four cubic weights, the place for `grid_sample` and their sum."""
    points = points.clamp(0, voxels - 1)
    below = points.floor()
    t = points - below
    lowest, highest = (1 - t) ** 3 / 6, t**3 / 6
    upper = (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6 + highest
    lower = 1 - upper
    places = (below - lowest / lower, below + 1 + highest / upper)
    return [
        ((place + 1) * (2 / (voxels + 1)) - 1, weight)
        for place, weight in zip(places, (lower, upper), strict=True)
    ]


def _points(
    elastic: Elastic | None,
    matrix: np.ndarray,
    offset: np.ndarray,
    size: Sequence[int],
    patch: Sequence[int],
    device: torch.device,
) -> torch.Tensor:
    """Return float32 (axes, *patch): where the voxels of the patch lie in the generator patch."""
    axes = len(patch)
    grid = torch.meshgrid(
        [torch.arange(n, device=device, dtype=torch.float32) for n in patch], indexing="ij"
    )
    turn = torch.from_numpy(matrix.astype(np.float32)).to(device)
    shape = (axes, *(1,) * axes)
    centre = torch.tensor([(n - 1) / 2 for n in patch], device=device).reshape(shape)
    where = torch.stack(grid)
    if elastic is None:
        return torch.tensordot(turn, where, 1) + torch.from_numpy(offset.astype(np.float32)).to(
            device
        ).reshape(shape)
    moved = torch.tensordot(turn, where - centre + _displacement(elastic, device), 1)
    middle = torch.tensor([n / 2 - 0.5 for n in size], device=device).reshape(shape)
    if elastic.factor is None:  # stretched: the mean of all lies in the centre
        moved = moved - moved.mean(list(range(1, axes + 1)), keepdim=True)
    return moved + middle


def _displacement(elastic: Elastic, device: torch.device) -> torch.Tensor:
    """Return float32 (axes, *patch) voxels: `spatial.displacement` on tensors."""
    field = products(torch.from_numpy(elastic.noise).to(device), smoothing_matrices(elastic))
    if elastic.factor is not None:
        return field * elastic.factor
    axes = list(range(1, field.ndim))
    largest = torch.tensor(elastic.magnitudes, device=device, dtype=torch.float32).reshape(
        -1, *(1,) * len(axes)
    )
    return field * ((largest + 1e-8) / field.abs().amax(axes, keepdim=True))


def _inside(where: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return bool (*patch): which points lie between the first and the last voxel along every axis."""
    sides = [(points >= 0) & (points <= n - 1) for points, n in zip(where, size, strict=True)]
    return torch.stack(sides).all(dim=0)


def _voted(maps: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Return the largest value with half of the linear weights at the points, or 0, of (K, *size) label maps.

    Only voxels between different values need weights.
    """
    size, patch = maps.shape[1:], where.shape[1:]
    where = where.reshape(len(size), -1)
    lower = [points.floor().clamp(0, n - 1).long() for points, n in zip(where, size, strict=True)]
    index = _flat_index(lower, (0,) * len(size), size)
    smallest, largest = (
        _over_corners(reduce, maps).flatten(1)[:, index]
        for reduce in (torch.minimum, torch.maximum)
    )
    inside = _inside(where, size)
    result = smallest * inside
    channel, voxel = ((smallest != largest) & inside).nonzero(as_tuple=True)
    base = [low[voxel] for low in lower]
    upper_weights = [points[voxel] - low for points, low in zip(where, base, strict=True)]
    values, weights = [], []
    for corner in itertools.product((0, 1), repeat=len(size)):
        values.append(maps.flatten(1)[channel, _flat_index(base, corner, size)])
        weights.append(
            math.prod(w if side else 1 - w for w, side in zip(upper_weights, corner, strict=True))
        )
    result[channel, voxel] = _largest_with_half(torch.stack(values), torch.stack(weights))
    return result.reshape(len(maps), *patch)


def _over_corners(reduce: Callable[..., torch.Tensor], maps: torch.Tensor) -> torch.Tensor:
    """Reduce, for each voxel of (K, *size), over itself and its next neighbours along every axis of `size`."""
    for axis in range(1, maps.ndim):
        along = maps.shape[axis] - 1
        maps = torch.cat(
            [
                reduce(maps.narrow(axis, 0, along), maps.narrow(axis, 1, along)),
                maps.narrow(axis, along, 1),
            ],
            axis,
        )
    return maps


def _flat_index(
    lower: Sequence[torch.Tensor], corner: Sequence[int], size: Sequence[int]
) -> torch.Tensor:
    index = torch.zeros_like(lower[0])
    for low, side, voxels in zip(lower, corner, size, strict=True):
        index = index * voxels + ((low + 1).clamp(max=voxels - 1) if side else low)
    return index


def _largest_with_half(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return, for (corners, n) values and weights, the largest value whose weights sum to 0.5 or more, or 0."""
    winner = torch.full_like(values[0], _NO_VALUE)
    for candidate in values:
        enough = (weights * (values == candidate)).sum(0) >= 0.5
        winner = torch.where(enough, torch.maximum(winner, candidate), winner)
    return torch.where(winner == _NO_VALUE, torch.zeros_like(winner), winner)


def products(images: torch.Tensor, matrices: Sequence[np.ndarray]) -> torch.Tensor:
    """Return the products of the axes after the first of (K, *old) with (old, new) matrices; float32, contiguous.

    Samples far from each other have no weight: products are taken for some output samples at a time.
    """
    for axis, matrix in enumerate(matrices, start=1):
        shape = images.shape
        rows = images.reshape(math.prod(shape[:axis]), shape[axis], -1)
        blocks = []
        for start in range(0, matrix.shape[1], _BLOCK):
            block = matrix[:, start : start + _BLOCK].astype(np.float32)
            used = np.flatnonzero(np.abs(block).max(axis=1) > _NEGLIGIBLE)
            low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            weights = torch.from_numpy(block[low:high]).to(images.device)
            blocks.append(_product(rows[:, low:high], weights))
        images = torch.cat(blocks, dim=1).reshape(*shape[:axis], -1, *shape[axis + 1 :])
    return images


def _product(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return (lead, new, rest) of (lead, old, rest) and (old, new)."""
    if rows.shape[2] == 1:
        return (rows[..., 0] @ weights)[..., None]
    return weights.T @ rows
