"""Resampling along one axis as a product with a matrix that depends on the two lengths alone."""

from __future__ import annotations

import functools

import numpy as np


def nearest_samples(old: int, new: int) -> np.ndarray:
    """Return the input sample that is nearest to each of `new` output samples."""
    samples = np.floor((np.arange(new) + 0.5) * (old / new) - 0.5 + 0.5).astype(np.intp)
    return samples.clip(0, old - 1)


@functools.lru_cache(maxsize=8)
def spline_matrix(old: int, new: int, order: int) -> np.ndarray:
    """Return the float64 (new, old) matrix of spline resampling along one axis."""
    from scipy import ndimage  # here, since a rerun that has nothing to do needs it not

    impulses = np.eye(old)
    columns = [
        ndimage.zoom(i, new / old, order=order, mode="nearest", grid_mode=True) for i in impulses
    ]
    return np.stack(columns, axis=1)
