"""The spatial step on NumPy arrays: cubic images and voted labels, rotated, scaled, deformed, cropped, mirrored."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from nnunet_builtin.augmentation.geometry import (
    centre_window,
    placement,
    points,
    scaling_matrix,
    smoothing_matrices,
)

if TYPE_CHECKING:
    from nnunet_builtin.augmentation.decisions import Draw, Elastic

_TAPS = 4
_SHORT = 256  # voxels
_BLOCK = 1 << 15  # points at a time: what is computed for them stays in the processor's cache


def move(
    draw: Draw, images: np.ndarray, maps: np.ndarray, patch: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Deform, rotate, scale and crop the last axes about their centre; return new arrays.

    Args:
        draw: What was drawn.
        images: float32 (C, *generator patch).
        maps: Integer (K, *generator patch): the label and, in a cascade, the previous stage.
        patch: Of as many axes as are moved; others stay.

    Returns:
        float32 (C, ..., *patch) and (K, ..., *patch) of the maps' type. What comes from outside is 0.
    """
    axes = len(patch)
    size = images.shape[-axes:]
    if draw.angles is None and draw.scale is None and draw.elastic is None:
        window: tuple[Any, ...] = (..., *centre_window(size, patch))
        return images[window].copy(), maps[window].copy()
    matrix, offset = placement(draw, size, patch)
    planes, map_planes = images.reshape(-1, *size), maps.reshape(-1, *size)
    elastic = draw.elastic
    where = (
        points(matrix, offset, patch)
        if elastic is None
        else _deformed_points(elastic, matrix, size)
    )
    if draw.angles is None and draw.elastic is None:
        new_images = _scaled_images(planes, patch, matrix, offset)
    else:
        new_images = cubic(planes, where)
    new_maps = _moved_maps(map_planes, where)
    return new_images.reshape(*images.shape[:-axes], *patch), new_maps.reshape(
        *maps.shape[:-axes], *patch
    )


def along(array: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """Return the product of one axis with an (old, new) matrix."""
    if axis == array.ndim - 1:
        return array @ matrix
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    rows = array.reshape(math.prod(before), array.shape[axis], math.prod(after))
    return (matrix.T @ rows).reshape(*before, matrix.shape[1], *after)


def displacement(elastic: Elastic) -> np.ndarray:
    """Return float32 (axes, *patch) voxels: smoothed noise, times a factor or stretched to its largest displacements."""
    field = elastic.noise
    for axis, matrix in enumerate(smoothing_matrices(elastic)):
        field = along(field, matrix, axis + 1)
    if elastic.factor is not None:
        return field * np.float32(elastic.factor)
    for part, magnitude in zip(field, elastic.magnitudes, strict=True):
        part /= np.abs(part).max() / np.float32(magnitude + 1e-8)  # noqa: PLW2901 (a view)
    return field


def _deformed_points(elastic: Elastic, matrix: np.ndarray, size: Sequence[int]) -> list[np.ndarray]:
    """Return where displaced voxels lie; of a stretched deformation, as in v1, the mean of all lies in the centre."""
    field = displacement(elastic)
    patch = field.shape[1:]
    moved = [sum(m * d for m, d in zip(row, field, strict=True)) for row in matrix]
    grid = points(matrix, -matrix @ ((np.array(patch) - 1) / 2), patch)
    if elastic.factor is None:
        moved = [m - m.mean() for m in moved]
    return [g + m + n / 2 - 0.5 for g, m, n in zip(grid, moved, size, strict=True)]


def cubic(images: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
    """Interpolate by cubic splines, 0 outside, as SciPy does, more than twice as fast.

    A value is a sum of 4 ** axes weighted coefficients. A table has every four neighbours along the last axis as a row;
    PyTorch's `embedding_bag` sums, for each point, 4 ** (axes - 1) rows with the weights along the other axes, and the weights
    along the last axis sum the four columns.

    Args:
        images: float32 (K, *size).
        where: Voxels per axis, float64 (*patch).

    Returns:
        float32 (K, *patch).
    """
    size, shape = images.shape[1:], where[0].shape
    # Between neighbours along each axis lie `steps` rows of a table; from a point's first row, its others lie `rows` ahead.
    steps = [
        math.prod([n + _TAPS - 1 for n in size[axis + 1 : -1]]) * size[-1]
        for axis in range(len(size) - 1)
    ] + [1]
    ahead = functools.reduce(
        lambda sums, step: np.add.outer(sums, np.arange(_TAPS) * step), steps[:-1], np.zeros(())
    )
    rows = torch.from_numpy(ahead.ravel().astype(np.int32))
    tables = [_rows_of_four(_coefficients(image)) for image in images]
    result = np.empty((len(images), math.prod(shape)), np.float32)
    for start in range(0, result.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        axes = [_cubic_weights(p.ravel()[block], n) for p, n in zip(where, size, strict=True)]
        first = sum(lowest * step for (lowest, _), step in zip(axes, steps, strict=True))
        *outer, last = (weights for _, weights in axes)
        products = functools.reduce(lambda a, b: (a[:, None] * b).reshape(-1, b.shape[1]), outer)
        bags = torch.from_numpy(first)[:, None] + rows
        scale = torch.from_numpy(np.ascontiguousarray(products.T))
        for table, row in zip(tables, result, strict=True):
            sums = functional.embedding_bag(bags, table, mode="sum", per_sample_weights=scale)
            np.einsum("nk,kn->n", sums.numpy(), last, out=row[block])
    return result.reshape(len(images), *shape) * _inside(where, size)


def _coefficients(image: np.ndarray) -> np.ndarray:
    """Return the float32 coefficients of cubic splines; along short axes by a product, which is faster there."""
    for axis, voxels in enumerate(image.shape):
        if voxels <= _SHORT:
            image = along(image, _filter_matrix(voxels), axis)
        else:
            image = ndimage.spline_filter1d(image, 3, axis, output=np.float32)
    return image


@functools.cache
def _filter_matrix(voxels: int) -> np.ndarray:
    return ndimage.spline_filter1d(np.eye(voxels), 3, axis=1).astype(np.float32)


def _rows_of_four(coefficients: np.ndarray) -> torch.Tensor:
    """Return float32 (n, 4): every four neighbours along the last axis, with three more voxels per axis, mirrored."""
    padded = np.pad(coefficients, (1, _TAPS - 2), mode="reflect")
    return torch.from_numpy(padded).unfold(-1, _TAPS, 1).reshape(-1, _TAPS)


def _cubic_weights(points: np.ndarray, voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first voxel, counted from the padding on, int32 (n), and float32 (4, n) weights of it and the next three."""
    points = points.clip(0, voxels - 1)
    lowest = np.minimum(points.astype(np.int32), max(0, voxels - 2))
    t = (points - lowest).astype(np.float32)
    rest = 1 - t
    first, last = rest * rest * rest / 6, t * t * t / 6
    second = 2 / 3 - t * t * (1 - t / 2)
    return lowest, np.stack([first, second, 1 - first - second - last, last])


def _inside(where: Sequence[np.ndarray], size: Sequence[int]) -> np.ndarray:
    return np.logical_and.reduce(
        [(p >= 0) & (p <= n - 1) for p, n in zip(where, size, strict=True)]
    )


def _scaled_images(
    images: np.ndarray, patch: Sequence[int], matrix: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Do the same for a diagonal matrix: one product per axis, with the interpolation of unit impulses."""
    for axis, new in enumerate(patch):
        weights = scaling_matrix(images.shape[axis + 1], new, matrix[axis, axis], offset[axis])
        images = along(images, weights.astype(np.float32), axis + 1)
    return images


def _moved_maps(maps: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
    """Return the largest value that has half of the linear weights at the points, for (K, *size) label maps.

    0 where there is none, and outside. Only voxels between different values need weights.
    """
    size = maps.shape[1:]
    inside = _inside(where, size)
    lower = [np.floor(p).astype(np.intp).clip(0, n - 1) for p, n in zip(where, size, strict=True)]
    smallest, largest = (
        _over_corners(reduce, maps)[(slice(None), *lower)] for reduce in (np.minimum, np.maximum)
    )
    result = np.where(inside, smallest, 0)
    mixed = np.nonzero((smallest != largest) & inside)
    base = [axis_lower[mixed[1:]] for axis_lower in lower]
    upper_weights = [p[mixed[1:]] - b for p, b in zip(where, base, strict=True)]
    values, weights = [], []
    for corner in itertools.product((0, 1), repeat=len(size)):
        voxels = [
            np.minimum(b + side, n - 1) for b, side, n in zip(base, corner, size, strict=True)
        ]
        values.append(maps[(mixed[0], *voxels)])
        weights.append(
            math.prod(w if side else 1 - w for w, side in zip(upper_weights, corner, strict=True))
        )
    result[mixed] = _largest_with_half(np.array(values), np.array(weights))
    return result


def _over_corners(reduce: np.ufunc, maps: np.ndarray) -> np.ndarray:
    """Reduce, for each voxel of (K, *size), over itself and its next neighbours along every axis of `size`."""
    result = maps.copy()
    for axis in range(1, maps.ndim):
        view = np.moveaxis(result, axis, 0)
        reduce(view[:-1], view[1:], out=view[:-1])
    return result


def _largest_with_half(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return, for (corners, n) values and weights, the largest value whose weights sum to 0.5 or more, or 0."""
    winner = np.zeros(values.shape[1], values.dtype)
    for value in np.unique(values):
        winner[(weights * (values == value)).sum(axis=0) >= 0.5] = value
    return winner
