"""Resampling of images, label maps and probabilities to another grid (spec: preprocessing, section
2).

Spline interpolation is linear and separable: along one axis it is a product with a matrix that
depends on the two lengths alone. The matrices are read off `scipy.ndimage.zoom` of unit impulses,
so they hold SciPy's own numbers, its boundary included. Their entries fall off quickly from the
diagonal; products are taken band by band.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.preprocessing.linear import (
    Taps,
    between,
    interpolate,
    nearest,
    part_of,
    taps_of,
)
from nnunet_builtin.preprocessing.matrices import spline_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Spacing ratio above which the axis of the lowest resolution is resampled apart from the others.
ANISOTROPY = 3
CPU = "cpu"
_BAND_ROWS = 32
_NEGLIGIBLE = 1e-9  # weights of spline samples this far from the output sample vanish in float32
_VOXELS_AT_ONCE = 1 << 15
_SLICES_AT_ONCE = 8


def new_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, ...]:
    """Return the voxels per axis of a grid of `shape` and `spacing` (mm) at the `target` spacing;
    at least 1.
    """
    sizes = np.round(np.asarray(spacing, float) / np.asarray(target, float) * np.asarray(shape))
    return tuple(max(1, int(size)) for size in sizes)


def low_axis(original_spacing: Sequence[float], target_spacing: Sequence[float]) -> int | None:
    """Return the axis to resample apart by nearest neighbour, or None for ordinary resampling.

    It is the only axis of the largest spacing, if that is more than 3 times the smallest; the
    original spacing decides if it is anisotropic, else the target spacing.
    """
    for spacing in (original_spacing, target_spacing):
        largest = max(spacing)
        if largest / min(spacing) > ANISOTROPY:
            axes = [axis for axis, value in enumerate(spacing) if value == largest]
            return axes[0] if len(axes) == 1 else None
    return None


def resample_images(
    images: np.ndarray,
    shape: Sequence[int],
    low_axis: int | None,
    order: int = 3,
    order_z: int = 0,
    device: str = CPU,
) -> np.ndarray:
    """Resample every channel by splines, clipped to the values of its input.

    Args:
        images: float32 (C, *spatial), no NaN.
        shape: New spatial shape.
        low_axis: Axis to resample apart, of the three spatial ones; slices across it are then
            clipped one by one.
        order: Spline order, of all axes or of those within slices.
        order_z: Spline order along `low_axis`.
        device: Where to compute.

    Returns:
        float32 (C, *shape); `images` itself when the shape stays.
    """
    if images.shape[1:] == tuple(shape):
        return images
    result = np.empty((len(images), *shape), np.float32)
    if device != CPU:
        _on_gpu(images, result, low_axis, order, order_z, device)
        return result
    for channel, out in zip(images, result, strict=True):
        _resize(channel, out, low_axis, order, order_z)
    return result


def resample_probabilities(
    probabilities: np.ndarray,
    shape: Sequence[int],
    low_axis: int | None,
    out: np.ndarray | None = None,
    device: str = CPU,
) -> np.ndarray:
    """Resample every class linearly, without renormalisation (spec: inference, section 4).

    Args:
        probabilities: (K, *spatial).
        shape: New spatial shape.
        low_axis: Axis along which the nearest sample is taken, or None.
        out: float32 (K, *shape) to write to, a new array by default.
        device: Where to compute.

    Returns:
        float32 (K, *shape).
    """
    result = np.empty((len(probabilities), *shape), np.float32) if out is None else out
    if probabilities.shape[1:] == tuple(shape):
        result[...] = probabilities
        return result
    if device != CPU:
        _on_gpu(probabilities, result, low_axis, 1, 0, device)
        return result
    taps = taps_of(probabilities.shape[1:], shape, low_axis)
    for start in range(0, shape[0], _SLICES_AT_ONCE):
        place = slice(start, min(start + _SLICES_AT_ONCE, shape[0]))
        source, first = part_of(taps[0], place.start, place.stop)
        for channel, target in zip(probabilities[:, source], result[:, place], strict=True):
            target[...] = interpolate(channel[None], [first, *taps[1:]])[0]
    return result


def _on_gpu(
    channels: np.ndarray,
    out: np.ndarray,
    low_axis: int | None,
    order: int,
    order_z: int,
    device: str,
) -> None:
    from nnunet_builtin.preprocessing.resampling_torch import resample

    resample(channels, out, low_axis, order, order_z, device)


def resample_label(
    label: np.ndarray, shape: Sequence[int], low_axis: int | None, largest_share: bool = False
) -> np.ndarray:
    """Resample a label map: a voxel gets the value whose 0/1 map, interpolated linearly, reaches
    0.5.

    The larger value wins a tie; where no value reaches 0.5 the result is 0. A voxel interpolates
    between eight corners (four with `low_axis`), so only voxels whose corners differ need
    computing, whatever the number of values.

    Args:
        label: Integer (*spatial), three axes.
        shape: New shape.
        low_axis: Axis along which the nearest sample is taken, or None.
        largest_share: Instead, the value whose map is the largest one; of equal ones that of the
            nearest sample, else the smallest (nnU-Net v2 with batchgenerators 0.25.5).

    Returns:
        Array of shape `shape` and the input's type; `label` itself when the shape stays.
    """
    if label.shape == tuple(shape):
        return label
    taps = [
        nearest(old, new) if axis == low_axis else between(old, new)
        for axis, (old, new) in enumerate(zip(label.shape, shape, strict=True))
    ]
    smallest, largest = label, label
    for axis, sides in enumerate(taps):
        first, last = sides[0].samples, sides[-1].samples
        smallest = np.minimum(smallest.take(first, axis), smallest.take(last, axis))
        largest = np.maximum(largest.take(first, axis), largest.take(last, axis))
    mixed = np.flatnonzero(smallest != largest)
    result = smallest.reshape(-1)
    for start in range(0, len(mixed), _VOXELS_AT_ONCE):
        voxels = mixed[start : start + _VOXELS_AT_ONCE]
        places = np.unravel_index(voxels, tuple(shape))
        values, weights = _corners(label, taps, places)
        if largest_share:
            result[voxels] = _largest(values, weights, _nearest_values(label, shape, places))
        else:
            result[voxels] = _vote(values, weights)
    return smallest


def _nearest_values(
    label: np.ndarray, shape: Sequence[int], voxels: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the values of the nearest samples of single output voxels."""
    sizes = zip(label.shape, shape, voxels, strict=True)
    return label[tuple(nearest(old, new)[0].samples[v] for old, new, v in sizes)]


def _corners(
    label: np.ndarray, taps: Sequence[Taps], voxels: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (corners, voxels) values and float64 weights of the label's voxels around single
    output voxels.
    """
    shape = [len(sides) for sides in taps]
    samples = [[tap.samples[v] for tap in sides] for sides, v in zip(taps, voxels, strict=True)]
    factors = [[tap.weights[v] for tap in sides] for sides, v in zip(taps, voxels, strict=True)]
    values = np.empty((math.prod(shape), len(voxels[0])), label.dtype)
    weights = np.empty(values.shape)
    for corner, sides in enumerate(np.ndindex(*shape)):
        values[corner] = label[tuple(samples[axis][side] for axis, side in enumerate(sides))]
        weights[corner] = functools.reduce(
            np.multiply, (factors[axis][side] for axis, side in enumerate(sides))
        )
    return values, weights


def _vote(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the largest value with half the weight or more, or 0, for (corners, voxels) values and
    weights.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    winner = np.where(_share(values, weights, low) >= 0.5, low, 0)
    between = np.flatnonzero(((values != low) & (values != high)).any(axis=0))
    if between.size:
        several, shares = values[:, between], weights[:, between]
        for candidate in np.sort(several, axis=0)[1:-1]:
            enough = _share(several, shares, candidate) >= 0.5
            winner[between[enough]] = candidate[enough]
    return np.where(_share(values, weights, high) >= 0.5, high, winner)


def _largest(values: np.ndarray, weights: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """Return the value with the largest weight, of equal ones the closest or else the smallest, for
    (corners, voxels) values and weights.
    """
    winner, best = np.zeros_like(closest), np.zeros(len(closest))
    for candidate in np.sort(values, axis=0):
        share = _share(values, weights, candidate)
        np.copyto(winner, candidate, where=share > best)
        np.maximum(best, share, out=best)
    return np.where(_share(values, weights, closest) == best, closest, winner)


def _share(values: np.ndarray, weights: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Return the weight of the corners that hold the candidate; summed in the order of SciPy, so
    that ties agree.
    """
    total = np.zeros(values.shape[1])
    for value, weight in zip(values, weights, strict=True):
        total += np.where(value == candidate, weight, 0)
    return total


def _resize(
    volume: np.ndarray,
    out: np.ndarray,
    low_axis: int | None,
    order: int,
    order_z: int,
) -> None:
    """Resample one float32 volume into `out`."""
    within = [axis for axis in (2, 1, 0) if axis != low_axis]
    bounds = tuple(within)
    lowest, highest = volume.min(axis=bounds, keepdims=True), volume.max(axis=bounds, keepdims=True)
    array = np.ascontiguousarray(volume, np.float32)
    for axis in within:
        array = _along(array, axis, out.shape[axis], order)
    if array is not volume:
        np.clip(array, lowest, highest, out=array)
    if low_axis is not None:
        array = _along(array, low_axis, out.shape[low_axis], order_z)
    out[...] = array


def _along(array: np.ndarray, axis: int, new: int, order: int) -> np.ndarray:
    """Resample a C-contiguous (Z, Y, X) array along one axis; it is returned as it is when the
    length stays.
    """
    old = array.shape[axis]
    if old == new:
        return array
    if order == 0:
        return array.take(nearest(old, new)[0].samples, axis)
    result = np.empty((*array.shape[:axis], new, *array.shape[axis + 1 :]), array.dtype)
    lead = math.prod(array.shape[:axis])
    for rows, columns, weights in _bands(old, new, order, array.dtype):
        if axis == 2:
            np.matmul(
                array.reshape(lead, old)[:, columns],
                weights.T,
                out=result.reshape(lead, new)[:, rows],
            )
        else:
            np.matmul(
                weights,
                array.reshape(lead, old, -1)[:, columns],
                out=result.reshape(lead, new, -1)[:, rows],
            )
    return result


@functools.lru_cache(maxsize=128)
def _bands(
    old: int, new: int, order: int, dtype: np.dtype
) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """Cut the matrix of one axis into bands of rows: (output samples, input samples, weights)."""
    matrix = spline_matrix(old, new, order)
    bands = []
    for start in range(0, new, _BAND_ROWS):
        rows = slice(start, min(start + _BAND_ROWS, new))
        used = np.flatnonzero(np.abs(matrix[rows]).max(axis=0) > _NEGLIGIBLE)
        columns = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((rows, columns, np.ascontiguousarray(matrix[rows, columns], dtype)))
    return tuple(bands)
