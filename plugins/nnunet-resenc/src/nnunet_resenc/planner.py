"""The planner of nnU-Net v2's residual-encoder presets: the steps in which it differs from v2.1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from nnunet_builtin.networks.estimate import BYTES_PER_VALUE
from nnunet_builtin.planning.architecture import Topology
from nnunet_builtin.planning.patches import Candidate, Grid
from nnunet_builtin.planning.planner import PlannerV21
from nnunet_builtin.planning.spacings import coarser
from nnunet_builtin.planning.target import Stage, Target
from nnunet_resenc.topology import topology_v2

if TYPE_CHECKING:
    from nnunet_core.data.fingerprint import Fingerprint
    from nnunet_core.data.plans import NetworkSpec, Normalization

Memory = Annotated[float, Field(gt=0, le=100_000)]
Values = Annotated[float, Field(gt=0, le=1e15)]

_FIRST_EDGE = {2: 2048, 3: 256}  # voxels; the first patch has as many as a cube of it
_REFERENCE_BATCH = {2: 12, 3: 2}
_SMALLEST_BATCH = 2
_MOST_FEATURES_2D = 512
_LOWER = 1.03  # a step of the search for a low resolution
_MASKED_BELOW = 0.75  # of a case, what cropping leaves


@dataclass
class ResEncPlanner(PlannerV21):
    """Plans as nnU-Net v2's ResEncUNetPlanner; settings that are not listed are those of `v21`.

    The network is asked for the memory of a patch: `resenc_unet` counts it as v2 does.

    Args:
        gpu_memory_gb: GPU memory that patches and batches are sized for.
        reference_gb: GPU memory of the reference values.
        reference_values_3d, reference_values_2d: Feature-map values that a patch may have, where
            the batch has 2 (2D: 12) patches.
        dataset_share: Share of the training set's voxels that a batch has at most, but for two
            patches. v2 has 1 here, and 0.05 for its plain networks.
        preprocessor: Of 3D configurations.
    """

    reference_gb: Memory = 8
    reference_values_3d: Values = 680_000_000
    reference_values_2d: Values = 135_000_000
    dataset_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    preprocessor: str = "builtin/v2"

    def choose_spacing(
        self,
        fingerprint: Fingerprint,
        dimensions: int,  # noqa: ARG002
    ) -> tuple[np.ndarray, str]:
        """Return the target spacing (z, y, x) in mm, and a note: slices have that of volumes."""
        return super().choose_spacing(fingerprint, 3)

    def why_only_slices(self, fingerprint: Fingerprint) -> str:
        """Return why no 3D network is planned, or nothing: the median case is a single slice."""
        spacing, _ = self.choose_spacing(fingerprint, 3)
        slices = self.choose_median_shape(fingerprint, spacing)[self.choose_axis_order(spacing)[0]]
        return "the median case is a single slice" if slices == 1 else ""

    def choose_median_shape(self, fingerprint: Fingerprint, spacing: np.ndarray) -> np.ndarray:
        """Return the median of the shapes after resampling, each rounded; (3,) voxels."""
        shapes = [np.round(np.array(c.spacing) / spacing * c.size) for c in fingerprint.cases]
        return np.median(shapes, axis=0)

    def make_grid(self, target: Target, spacing: np.ndarray) -> Grid:
        """Return the median case; v2 rounds it (a median may end in a half) at a low resolution
        only, and never where it counts voxels.
        """
        exact, axes = target.exact_shape_at(spacing), slice(-target.dimensions, None)
        full = np.array_equal(spacing, target.spacing[list(target.transpose)])
        shape = exact if full else np.round(exact)
        return Grid(spacing[axes], shape[axes], float(np.prod(exact)) * target.cases)

    def choose_normalization(self, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
        """Return the normalisation of each channel; every z-score leaves the background out where
        cropping removed more than a quarter.
        """
        cropped = np.median([case.size_reduction for case in fingerprint.cases]) < _MASKED_BELOW
        return tuple(
            found.model_copy(update={"use_mask": bool(cropped) and found.scheme == "zscore"})
            for found in super().choose_normalization(fingerprint)
        )

    def choose_preprocessor(self, dimensions: int) -> str:
        """Return what normalises before it resamples."""
        return "resenc/v2_planes" if dimensions == 2 else self.preprocessor

    def network_spec(self, target: Target, found: Topology) -> NetworkSpec:
        """Return the network; in 2D it has at most 512 features."""
        spec = super().network_spec(target, found)
        update = {"max_features": _MOST_FEATURES_2D} if target.dimensions == 2 else {}
        return spec.model_copy(update=update)

    def counted_spec(self, target: Target, found: Topology, *, whole: bool) -> NetworkSpec:  # noqa: ARG002
        """Return the network that memory is estimated of: with an output for each name in
        dataset.json, also for the background of regions and for the ignore label.
        """
        labels = target.labels
        names = 1 + (len(labels.regions) or len(labels.foreground)) + (labels.ignore is not None)
        return self.network_spec(target, found).model_copy(update={"output_channels": names})

    def choose_topology(self, spacing: np.ndarray, patch: Sequence[float]) -> Topology:
        """Return pooling and kernels for a patch (D,) in voxels at a spacing in mm."""
        found = topology_v2(spacing, patch)
        if not self.all_conv3:
            return found
        return replace(found, kernels=tuple((3,) * len(kernel) for kernel in found.kernels))

    def patch_budget(self, dimensions: int) -> float:
        """Return the bytes that training on one patch may take."""
        values = self.reference_values_2d if dimensions == 2 else self.reference_values_3d
        return values * (self.gpu_memory_gb / self.reference_gb) * BYTES_PER_VALUE

    def first_patch(self, grid: Grid) -> np.ndarray:
        """Return the patch (D,) in voxels that the search begins with: equal edges in mm, within
        the median case.
        """
        if self.shrink == "voxels":
            return grid.shape
        axes, inverse = grid.dimensions, 1 / grid.spacing
        factor = (_FIRST_EDGE[axes] ** axes / np.prod(inverse)) ** (1 / axes)
        return np.minimum(np.round(inverse * factor), grid.shape)

    def choose_batch_size(self, grid: Grid, found: Candidate, budget: float) -> tuple[int, str]:
        """Return how many patches fit, two at least and a share of the dataset at most, and which
        limit decided.
        """
        fitting = round(budget / found.memory * _REFERENCE_BATCH[grid.dimensions])
        share = round(self.dataset_share * grid.voxels / found.voxels)
        limit = "GPU memory limits"
        if share < fitting:
            percent = 100 * self.dataset_share
            limit = f"{percent:g} % of the dataset's voxels (planner.dataset_share) limit"
        return max(min(fitting, share), _SMALLEST_BATCH), f"{limit} the batch size"

    def choose_low_resolution(
        self, target: Target, full: Stage, stage_at: Callable[[np.ndarray], Stage]
    ) -> tuple[Stage | None, str]:
        """Return the network of 3d_lowres, or None and why there is none; unlike v1's, the search
        has steps of 3 %, and compares voxels that are not rounded.
        """
        if not self.low_resolution:
            return None, "planner.low_resolution is false"
        whole, coverage = float(np.prod(target.median)), self.low_resolution_coverage
        if (covered := full.found.voxels / whole) >= coverage:
            return None, (
                f"a patch of 3d_fullres covers {covered:.0%} of the median case; below "
                f"{coverage:.0%} (planner.low_resolution_coverage) a low resolution is planned"
            )
        spacing, low, voxels = target.spacing, full, whole
        while low.found.voxels / voxels < coverage:
            spacing = coarser(spacing, _LOWER)
            voxels = float(np.prod(target.spacing / spacing * target.median))
            low = stage_at(spacing)
        if whole / voxels < 2:
            return None, "it would hold more than half the voxels of 3d_fullres"
        return low, ""
