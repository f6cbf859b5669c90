"""A dataset at its target spacing, and the network that is planned for a spacing (spec: planning,
sections 3 and 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.planning.patches import Candidate, Grid
from nnunet_builtin.planning.spacings import coarser

if TYPE_CHECKING:
    from nnunet_core.data.fingerprint import Fingerprint
    from nnunet_core.data.labels import Labels


@dataclass(frozen=True)
class Target:
    """What the rules need of a dataset.

    Attributes:
        dimensions: Of the network's patches, 2 or 3.
        spacing: Target spacing in mm, axes as in the file.
        median: Median shape at the target spacing, not rounded, axes as in the file.
        transpose: Axis permutation of the network.
        cases, inputs: Training cases, image channels.
        labels: Of the dataset.
        note: How the target spacing was found.
    """

    dimensions: int
    spacing: np.ndarray
    median: np.ndarray
    transpose: tuple[int, int, int]
    cases: int
    inputs: int
    labels: Labels
    note: str

    def shape_at(self, spacing: np.ndarray) -> np.ndarray:
        """Return the voxels (3,) of the median case at a spacing in mm; both in the axis order of
        the network.
        """
        return np.round(self.exact_shape_at(spacing)).astype(int).clip(min=1)

    def exact_shape_at(self, spacing: np.ndarray) -> np.ndarray:
        """Return the same, not rounded."""
        order = list(self.transpose)
        exact: np.ndarray = self.spacing[order] / spacing * self.median[order]
        return exact

    def grid(self, spacing: np.ndarray) -> Grid:
        """Return what a patch covers at a spacing in mm, in the axis order of the network."""
        shape, axes = self.shape_at(spacing), slice(-self.dimensions, None)
        voxels = math.prod(map(int, shape)) * self.cases
        return Grid(spacing[axes], shape[axes], voxels)


@dataclass(frozen=True)
class Stage:
    """One network; axes in its order.

    Attributes:
        spacing, shape: mm and voxels of the median case, three axes.
        found: Pooling, kernels, patch size.
        batch_size: Patches per iteration.
        notes: Which limits decided.
    """

    spacing: np.ndarray
    shape: np.ndarray
    found: Candidate
    batch_size: int
    notes: tuple[str, ...]


def median_shape(fingerprint: Fingerprint, spacing: np.ndarray) -> np.ndarray:
    """Return the median shape of the cases at a spacing in mm, (3,), not rounded (section 3)."""
    shapes = [np.array(case.spacing) / spacing * np.array(case.size) for case in fingerprint.cases]
    return np.median(shapes, axis=0)


def coarsest_first(spacing: np.ndarray) -> tuple[int, int, int]:
    """Return the permutation that makes the axis of the lowest resolution the first (section 3)."""
    coarsest = int(np.argmax(spacing))
    first, second = (axis for axis in range(3) if axis != coarsest)
    return coarsest, first, second


def low_resolution(
    target: Target, full: Stage, stage_at: Callable[[np.ndarray], Stage], coverage: float = 0.25
) -> tuple[Stage | None, str]:
    """Return the low-resolution network, or why there is none (section 8).

    The spacing grows until a patch covers this share of the median case.
    """
    share = 1 / coverage
    patch, voxels = full.found.voxels, float(np.prod(target.median))
    if voxels / patch <= share:
        return None, (
            f"a patch of 3d_fullres covers {patch / voxels:.0%} of the median case; below "
            f"{coverage:.0%} (planner.low_resolution_coverage) a low resolution is planned"
        )
    spacing, low = target.spacing, full
    while voxels > share * patch:
        spacing = coarser(spacing)
        voxels = float(np.prod(target.spacing / spacing * target.median))
        low = stage_at(spacing)
        patch = low.found.voxels
    if 2 * low.shape.prod() < full.shape.prod():
        return low, ""
    return None, "it would hold more than half the voxels of 3d_fullres"
