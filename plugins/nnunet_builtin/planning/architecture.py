"""Pooling, kernels and patch sizes of the U-Net (spec: planning, section 4)."""

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
        patch_size: The patch, padded to the divisor.
        divisor: Product of the strides per axis.
    """

    pools: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]
    divisor: tuple[int, ...]


def topology(spacing: Iterable[float], patch_size: Iterable[int]) -> Topology:
    """Return pooling and kernels for a spacing (mm) and a patch size (voxels)."""
    s, p = [float(v) for v in spacing], [int(v) for v in patch_size]
    first, axes = tuple(p), range(len(s))
    pools, kernels = [], []
    while True:
        group = _similar(s)
        valid = [i for i in axes if s[i] / min(s) < 2 and p[i] >= 2 * MINIMUM_EDGE]
        if not valid:
            break
        pools.append(tuple(2 if i in valid else 1 for i in axes))
        kernels.append(tuple(3 if i in group else 1 for i in axes))
        for i in valid:
            s[i] *= 2
            p[i] = math.ceil(p[i] / 2)
    kernels.append((3,) * len(s))
    divisor = tuple(math.prod(pool[i] for pool in pools) for i in axes)
    padded = tuple(math.ceil(size / step) * step for size, step in zip(first, divisor, strict=True))
    return Topology(tuple(pools), tuple(kernels), padded, divisor)


def _similar(spacing: Sequence[float]) -> list[int]:
    """Return the first largest group of axes within a factor of 2 of one of them."""
    groups = [
        [i for i, other in enumerate(spacing) if other / own < 2 and own / other < 2]
        for own in spacing
    ]
    return max(groups, key=len)
