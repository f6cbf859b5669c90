"""Pooling and kernels of the U-Net for a patch (spec: planning, section 4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MINIMUM_EDGE = 4


@dataclass(frozen=True)
class Topology:
    """Pooling and kernels for a patch.

    Attributes:
        pools: Stride per downsampling.
        kernels: Kernel per resolution, bottleneck last.
    """

    pools: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]


def topology(spacing: Iterable[float], patch_size: Iterable[float]) -> Topology:
    """Return pooling and kernels for a spacing (mm) and a patch size (voxels); not a voxel of it
    need be divisible.
    """
    s = [float(v) for v in spacing]
    p = [math.ceil(v) for v in patch_size]
    axes = range(len(s))
    pools, kernels = [], []
    while True:
        finest = min(s)
        pooled = [i for i in axes if s[i] / finest < 2 and p[i] >= 2 * MINIMUM_EDGE]
        if not pooled:
            break
        similar = _similar(s)
        pools.append(tuple(2 if i in pooled else 1 for i in axes))
        kernels.append(tuple(3 if i in similar else 1 for i in axes))
        for i in pooled:
            s[i] *= 2
            p[i] = math.ceil(p[i] / 2)
    kernels.append((3,) * len(s))
    return Topology(tuple(pools), tuple(kernels))


def _similar(spacing: Sequence[float]) -> list[int]:
    """Return the first largest group of axes within a factor of 2 of one of them."""
    largest: list[int] = []
    for own in spacing:
        group = [i for i, other in enumerate(spacing) if other / own < 2 and own / other < 2]
        if len(group) > len(largest):
            largest = group
    return largest
