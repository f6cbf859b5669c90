"""Linear interpolation to another grid, voxel by voxel: any part of the result can be computed
alone, and has the same bits as in the whole.

Along each axis a voxel is `weight * lower + weight * upper`, in float64, with SciPy's weights; they
are not negative and add up to 1. Rounding keeps order: where one class is nowhere below another,
it is not below it after interpolation.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.preprocessing.matrices import nearest_samples

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Tap:
    """One input sample of each output sample along an axis, and its weight."""

    samples: np.ndarray
    weights: np.ndarray


#: Of one axis: the lower and the upper neighbour of each output sample, or its nearest one alone.
Taps = tuple[Tap, ...]


@functools.lru_cache(maxsize=128)
def nearest(old: int, new: int) -> Taps:
    """Return the nearest sample of `old` for each of `new` samples."""
    return (Tap(nearest_samples(old, new), np.ones(new)),)


@functools.lru_cache(maxsize=128)
def between(old: int, new: int) -> Taps:
    """Return the lower and the upper neighbour; beyond the edge both are the edge, and share its
    weight as in SciPy.
    """
    coordinates = (np.arange(new) + 0.5) * (old / new) - 0.5
    below = np.floor(coordinates)
    weights = 1 - (coordinates - below)
    samples = below.astype(np.intp)
    return Tap(samples.clip(0, old - 1), weights), Tap((samples + 1).clip(0, old - 1), 1 - weights)


def taps_of(shape: Sequence[int], new: Sequence[int], low_axis: int | None) -> list[Taps]:
    """Return the taps of every axis: one along `low_axis`, and where the length stays."""
    return [
        nearest(old, size) if axis == low_axis or old == size else between(old, size)
        for axis, (old, size) in enumerate(zip(shape, new, strict=True))
    ]


def part_of(taps: Taps, start: int, stop: int) -> tuple[slice, Taps]:
    """Return the input samples that the output samples from `start` to `stop` need, and the taps
    between these alone.
    """
    first, last = int(taps[0].samples[start]), int(taps[-1].samples[stop - 1])
    cut = tuple(Tap(tap.samples[start:stop] - first, tap.weights[start:stop]) for tap in taps)
    return slice(first, last + 1), cut


def stays(taps: Taps) -> bool:
    """Return whether the output samples are the input samples."""
    samples = taps[0].samples
    return len(taps) == 1 and bool((samples == np.arange(len(samples))).all())


def interpolate(values: np.ndarray, taps: Sequence[Taps]) -> np.ndarray:
    """Return float32 values between those of a grid.

    Args:
        values: float32 (K, *spatial).
        taps: Of the three spatial axes.

    Returns:
        float32 (K, *new).
    """
    for axis, sides in enumerate(taps):
        if len(sides) == 1 and not stays(sides):
            values = values.take(sides[0].samples, axis + 1)
    linear = [axis for axis in (2, 1, 0) if len(taps[axis]) > 1]
    if not linear:
        return values
    array = values.astype(np.float64)
    for axis in linear:
        array = _along(array, axis + 1, taps[axis])
    return array.astype(np.float32)


def _along(array: np.ndarray, axis: int, taps: Taps) -> np.ndarray:
    column = [-1 if a == axis else 1 for a in range(array.ndim)]
    # two products and a sum, each rounded: a matrix product adds in an order that depends on sizes
    below, above = (array.take(tap.samples, axis) for tap in taps)
    below *= taps[0].weights.reshape(column)
    above *= taps[1].weights.reshape(column)
    below += above
    return below
