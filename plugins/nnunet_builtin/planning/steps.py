"""The settings of the v2.1 planner, and the steps of planning: what a subclass of the planner
replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from nnunet_builtin.networks.estimate import BYTES_PER_VALUE
from nnunet_builtin.planning import normalizations, patches
from nnunet_builtin.planning.architecture import Topology, topology
from nnunet_builtin.planning.assembly import MAX_FEATURES, network_spec
from nnunet_builtin.planning.patches import Candidate, Grid, Propose
from nnunet_builtin.planning.spacings import median_spacing, target_spacing
from nnunet_builtin.planning.target import (
    Stage,
    Target,
    coarsest_first,
    low_resolution,
    median_shape,
)
from nnunet_core.data.limits import BatchSize, Features, Layers, Millimetres

if TYPE_CHECKING:
    from nnunet_core.data.fingerprint import Fingerprint
    from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization

_FIXED = "the target spacing is planner.target_spacing"

#: Bytes of a patch on a card of 8 GB, which holds two: v1's numbers of values (spec: planning,
#: sections 1 and 11).
_BUDGET_2D = 19_739_648 * 50 / 2 * BYTES_PER_VALUE
_BUDGET_3D = 520_000_000 * BYTES_PER_VALUE
_BUDGET_FEATURES = 30
_CONVS_2D = 2
#: What v1 counts with in 2D, though it builds networks of `base_features` and MAX_FEATURES (spec:
#: planning, section 7).
_COUNTED_BASE_2D = 30
_COUNTED_MOST_2D = 512


@dataclass
class PlanningSteps:
    """The steps of planning; `PlannerV21` says what its settings are, and calls each step at one
    place.

    Arrays hold a number per axis: in the order of the file where a step says (z, y, x), else in
    that of the network. What chooses returns a note with it that says why, for people who read the
    plans; it may be empty.
    """

    gpu_memory_gb: Annotated[float, Field(gt=0, le=100_000)] = 8
    configurations: tuple[str, ...] | None = None
    max_batch_size: BatchSize | None = None
    base_features: Features = 32
    convs_per_stage: Layers = 2
    target_spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    low_resolution: bool = True
    low_resolution_coverage: Annotated[float, Field(ge=0.001, le=1)] = 0.25
    shrink: Literal["relative", "mm", "voxels"] = "relative"
    all_conv3: bool = False
    schemes: Mapping[str, str] = field(default_factory=lambda: dict(normalizations.SCHEMES))
    preprocessor: str = "default"

    def why_only_slices(self, fingerprint: Fingerprint) -> str:
        """Return why no 3D network is planned unless `configurations` names one, or nothing."""
        single = all(case.size[0] == 1 for case in fingerprint.cases)
        return "every case is a single slice" if single else ""

    def choose_spacing(self, fingerprint: Fingerprint, dimensions: int) -> tuple[np.ndarray, str]:
        """Return the target spacing (z, y, x) in mm of 2D or 3D networks, and a note (spec:
        planning, section 2).
        """
        if dimensions == 2:
            return median_spacing(fingerprint), ""
        if self.target_spacing is not None:
            return np.array(self.target_spacing, float), _FIXED
        return target_spacing(fingerprint)

    def choose_axis_order(self, spacing: np.ndarray) -> tuple[int, int, int]:
        """Return the axis permutation of networks for a target spacing; patches of 2D networks have
        the last two (section 3).
        """
        return coarsest_first(spacing)

    def choose_median_shape(self, fingerprint: Fingerprint, spacing: np.ndarray) -> np.ndarray:
        """Return the voxels (3,) of the median case at a target spacing, not rounded; both in the
        order of the file (spec: planning, section 3).
        """
        return median_shape(fingerprint, spacing)

    def choose_normalization(self, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
        """Return the normalisation of each channel (spec: planning, section 3)."""
        return normalizations.normalization(fingerprint, self.schemes)

    def choose_preprocessor(self, dimensions: int) -> str:
        """Return the reference of the preprocessor of 2D or 3D configurations."""
        return "planes" if dimensions == 2 else self.preprocessor

    def make_grid(self, target: Target, spacing: np.ndarray) -> Grid:
        """Return the median case at a spacing (3,) in mm, in the axis order of the network."""
        return target.grid(spacing)

    def network_spec(self, target: Target, found: Topology) -> NetworkSpec:
        """Return the network that is built, with pooling and kernels as they were chosen."""
        convs = _CONVS_2D if target.dimensions == 2 else self.convs_per_stage
        most = MAX_FEATURES[target.dimensions]
        return network_spec(target, found, self.base_features, most, convs)

    def counted_spec(self, target: Target, found: Topology, *, whole: bool) -> NetworkSpec:
        """Return the network that memory is estimated of; `whole`: its patch is the median case
        (section 7).
        """
        if target.dimensions == 3:
            return self.network_spec(target, found)
        # v1 counts fewer features for a patch that is the whole plane than for shorter ones
        features = _COUNTED_BASE_2D if whole else self.base_features
        return network_spec(target, found, features, _COUNTED_MOST_2D, _CONVS_2D)

    def choose_topology(self, spacing: np.ndarray, patch: Sequence[float]) -> Topology:
        """Return pooling and kernels for a patch (D,) in voxels at a spacing in mm (spec: planning,
        section 4).
        """
        found = topology(spacing, patch)
        if not self.all_conv3:
            return found
        return Topology(found.pools, tuple((3,) * len(kernel) for kernel in found.kernels))

    def patch_budget(self, dimensions: int) -> float:
        """Return the bytes that training on one patch may take: half of the memory (spec: planning,
        sections 1 and 11).
        """
        if dimensions == 2:
            return _BUDGET_2D
        if self.gpu_memory_gb == 8:
            return _BUDGET_3D * self.base_features / _BUDGET_FEATURES
        return _BUDGET_3D * self.gpu_memory_gb / (8.5 if self.gpu_memory_gb == 16 else 8)

    def choose_patch(self, grid: Grid, propose: Propose, budget: float) -> tuple[Candidate, str]:
        """Return a patch that fits the budget, and a note: the first patch, made shorter until it
        fits (sections 6 and 7).

        Args:
            grid: The median case.
            propose: Returns, for any patch size in voxels, the candidate: rounded up to what the
                network can take, with its memory.
            budget: Bytes of training on one patch.

        Raises:
            UsageError: No patch fits.
        """
        found = propose(self.first_patch(grid))
        note = patches.COVERS
        while found.memory > budget:
            length = self.axis_lengths(np.array(found.patch_size), grid)
            found = propose(patches.shorter(found, length, propose))
            note = patches.SHRUNK
        return found, note

    def first_patch(self, grid: Grid) -> np.ndarray:
        """Return the patch (D,) in voxels that the search begins with: of equal edges in mm, within
        the median case.
        """
        if grid.dimensions == 2 or self.shrink == "voxels":
            return grid.shape
        return patches.equal_edges(grid)

    def axis_lengths(self, patch: np.ndarray, grid: Grid) -> np.ndarray:
        """Return how long each axis of a patch counts (D,); the longest gets shorter, the last one
        in a tie (section 6).
        """
        return patches.lengths(patch, grid, "relative" if grid.dimensions == 2 else self.shrink)

    def choose_batch_size(self, grid: Grid, found: Candidate, budget: float) -> tuple[int, str]:
        """Return the patches of a batch, and a note (sections 6 and 7); `max_batch_size` is applied
        to it.
        """
        rule = patches.batch_size_2d if grid.dimensions == 2 else patches.batch_size_3d
        return rule(grid, found, budget)

    def choose_low_resolution(
        self, target: Target, full: Stage, stage_at: Callable[[np.ndarray], Stage]
    ) -> tuple[Stage | None, str]:
        """Return the network of 3d_lowres, or None and why there is none (spec: planning, section
        8).

        Args:
            target: The dataset at full resolution.
            full: The network of 3d_fullres.
            stage_at: Plans a network at a spacing in mm, axes as in the file.
        """
        if not self.low_resolution:
            return None, "planner.low_resolution is false"
        return low_resolution(target, full, stage_at, self.low_resolution_coverage)

    def choose_configurations(self, planned: dict[str, Configuration]) -> dict[str, Configuration]:
        """Return the configurations of the plans, in order: those that were planned; a subclass may
        add some, or change them.
        """
        return planned
