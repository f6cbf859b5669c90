"""Patch sizes: where the search begins, what fits, and how a patch gets smaller (spec: planning,
sections 6 and 7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunet_builtin.planning.architecture import Topology
from nnunet_core.errors import UsageError

EDGE = 512
DATASET_SHARE = 0.05
COVERS = "the patch covers the median case"
SHRUNK = "GPU memory limits the patch size"


@dataclass(frozen=True)
class Grid:
    """The dataset at the spacing of one network, along the axes that its patches have: three, or
    the two of a slice.

    Attributes:
        spacing: mm, (D,), in the axis order of the network.
        shape: Voxels of the median case, (D,); whole numbers, unless a planner plans with halves.
        voxels: Of all training cases together, if each were the median case; three axes in 2D, too.
    """

    spacing: np.ndarray
    shape: np.ndarray
    voxels: float

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.shape)


@dataclass(frozen=True)
class Candidate:
    """A patch size and the network for it.

    Attributes:
        patch_size: Voxels, multiples of the divisor.
        divisor: What the network builder asks for.
        topology: Pooling and kernels.
        memory: Bytes of training on one patch, by the network builder.
    """

    patch_size: tuple[int, ...]
    divisor: tuple[int, ...]
    topology: Topology
    memory: float

    @property
    def voxels(self) -> int:
        """Volume of the patch."""
        return math.prod(self.patch_size)


#: A wished patch size, (D,) voxels -> the candidate of at least that size that the network can
#: take.
Propose = Callable[[Sequence[float] | np.ndarray], Candidate]


def rounded_up(patch: Sequence[float], divisor: Sequence[int]) -> tuple[int, ...]:
    """Return the smallest multiples of the divisor that are no less than a patch."""
    pairs = zip(patch, divisor, strict=True)
    return tuple(max(1, math.ceil(size / step)) * step for size, step in pairs)


def equal_edges(grid: Grid) -> np.ndarray:
    """Return 512 voxels on the coarsest axis and as many mm on the others, within the median case
    (section 6).
    """
    inverse = 1 / grid.spacing
    inverse = inverse / inverse.mean()
    return np.minimum(np.round(inverse * (1 / inverse.min() * EDGE)), grid.shape).astype(int)


def lengths(patch: np.ndarray, grid: Grid, by: Literal["relative", "mm", "voxels"]) -> np.ndarray:
    """Return how long each axis of a patch counts: against the median case, in mm or in voxels."""
    if by == "relative":
        return patch / grid.shape
    if by == "mm":
        return patch * grid.spacing
    return grid.spacing if np.all(patch == patch[0]) else patch


def shorter(found: Candidate, length: np.ndarray, propose: Propose) -> np.ndarray:
    """Return a patch whose longest axis is a divisor shorter; of axes of equal length the last one
    (section 6).

    Raises:
        UsageError: No axis is longer than its divisor.
    """
    sizes = np.array(found.patch_size)
    can_shrink = sizes > found.divisor  # v1 shortens thin axes to nothing, and fails
    if not can_shrink.any():
        raise UsageError(
            f"The network needs {found.memory / 1e9:.3g} GB for its smallest patch "
            f"{found.patch_size}, more than the planner allows. Plan with more memory (--set "
            "planner.gpu_memory_gb=...) or choose a smaller network."
        )
    axis = int(np.argsort(np.where(can_shrink, length, -1), kind="stable")[-1])
    tried = sizes.copy()
    tried[axis] -= found.divisor[axis]
    # the shorter patch may be pooled less; v1 then takes away only what that network is divisible
    # by
    sizes[axis] -= propose(tried).divisor[axis]
    return sizes


def batch_size_3d(grid: Grid, found: Candidate, budget: float) -> tuple[int, str]:
    """Return how many patches fit, two at least and 5 % of the dataset at most, and which limit
    decided (section 6).
    """
    fitting = math.floor(max(budget / found.memory, 1) * 2)
    return _within(fitting, max(_share(grid, found), 2))


def batch_size_2d(grid: Grid, found: Candidate, budget: float) -> tuple[int, str]:
    """Return how many patches fit, an even number, and 5 % of the dataset at most (section 7)."""
    fitting = math.floor(budget / found.memory) * 2
    return _within(fitting, _share(grid, found))


def _share(grid: Grid, found: Candidate) -> int:
    return round(DATASET_SHARE * grid.voxels / found.voxels)


def _within(fitting: int, share: int) -> tuple[int, str]:
    limit = "5 % of the dataset's voxels limit" if share < fitting else "GPU memory limits"
    return max(1, min(fitting, share)), f"{limit} the batch size"
