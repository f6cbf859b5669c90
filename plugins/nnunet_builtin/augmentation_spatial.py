"""The spatial step on NumPy arrays: cubic images and voted labels, rotated, scaled, deformed, cropped, mirrored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from nnunet_builtin.augmentation_geometry import centre_window, placement, points, scaling_matrix, smoothing_matrices

if TYPE_CHECKING:
    from nnunet_builtin.augmentation_draw import Draw, Elastic


def move(draw: Draw, images: np.ndarray, maps: np.ndarray, patch: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
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
    if draw.elastic is not None:
        where = _deformed_points(draw.elastic, matrix, size)
        new_images = _deformed_images(planes, where)
    else:
        where = points(matrix, offset, patch)
        moved = _scaled_images if draw.angles is None else _moved_images
        new_images = moved(planes, patch, matrix, offset)
    new_maps = _moved_maps(map_planes, where)
    return new_images.reshape(*images.shape[:-axes], *patch), new_maps.reshape(*maps.shape[:-axes], *patch)


def along(array: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """Return the product of one axis with an (old, new) matrix."""
    return np.moveaxis(np.tensordot(array, matrix, (axis, 0)), -1, axis)


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


def _deformed_images(images: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
    """Interpolate (K, *size) images by cubic splines at any points; 0 outside."""
    result = np.empty((len(images), *where[0].shape), np.float32)
    for image, out in zip(images, result, strict=True):
        coefficients = ndimage.spline_filter(image, 3, output=np.float32)
        ndimage.map_coordinates(coefficients, where, output=out, prefilter=False)
    return result


def _moved_images(images: np.ndarray, patch: Sequence[int], matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Interpolate (K, *size) images by cubic splines at `matrix @ voxel + offset`; 0 outside."""
    result = np.empty((len(images), *patch), np.float32)
    for image, out in zip(images, result, strict=True):
        coefficients = ndimage.spline_filter(image, 3, output=np.float32)
        ndimage.affine_transform(coefficients, matrix, offset, output=out, output_shape=tuple(patch), prefilter=False)
    return result


def _scaled_images(images: np.ndarray, patch: Sequence[int], matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
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
    inside = np.logical_and.reduce([(p >= 0) & (p <= n - 1) for p, n in zip(where, size, strict=True)])
    lower = [np.floor(p).astype(np.intp).clip(0, n - 1) for p, n in zip(where, size, strict=True)]
    smallest, largest = (_over_corners(reduce, maps)[(slice(None), *lower)] for reduce in (np.minimum, np.maximum))
    result = np.where(inside, smallest, 0)
    mixed = np.nonzero((smallest != largest) & inside)
    base = [axis_lower[mixed[1:]] for axis_lower in lower]
    upper_weights = [p[mixed[1:]] - b for p, b in zip(where, base, strict=True)]
    values, weights = [], []
    for corner in itertools.product((0, 1), repeat=len(size)):
        voxels = [np.minimum(b + side, n - 1) for b, side, n in zip(base, corner, size, strict=True)]
        values.append(maps[(mixed[0], *voxels)])
        weights.append(math.prod(w if side else 1 - w for w, side in zip(upper_weights, corner, strict=True)))
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
