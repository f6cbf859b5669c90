"""Pooling and kernels as nnU-Net v2 chooses them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nnunet_builtin.planning.architecture import Topology

_SHORTEST = 4  # voxels of an axis at the coarsest resolution


def topology_v2(spacing: np.ndarray, patch: Sequence[float]) -> Topology:
    """Return pooling and kernels for a spacing (D,) in mm and a patch size (D,) in voxels.

    An axis is pooled while it has 8 voxels or more and is less than twice as coarse as the finest
    of the axes that have them; one axis alone, while it has 12. An axis has kernels of 3 as soon as
    it was less than twice as coarse as the finest of all; the coarsest resolution has no others.
    """
    mm, voxels = [float(s) for s in spacing], [float(p) for p in patch]
    kernel = [1] * len(mm)
    pools, kernels = [], []
    while pooled := _pooled(mm, voxels):
        kernel = [3 if s / min(mm) < 2 else k for s, k in zip(mm, kernel, strict=True)]
        kernels.append(tuple(kernel))
        pools.append(tuple(2 if axis in pooled else 1 for axis in range(len(mm))))
        for axis in pooled:
            mm[axis] *= 2
            voxels[axis] = math.ceil(voxels[axis] / 2)
    return Topology(tuple(pools), (*kernels, (3,) * len(mm)))


def _pooled(mm: Sequence[float], voxels: Sequence[float]) -> list[int]:
    """Return the axes that the next step halves."""
    long = [axis for axis, size in enumerate(voxels) if size >= 2 * _SHORTEST]
    finest = min((mm[axis] for axis in long), default=0.0)
    chosen = [axis for axis in long if mm[axis] / finest < 2]
    if len(chosen) == 1 and voxels[chosen[0]] < 3 * _SHORTEST:
        return []
    return chosen
