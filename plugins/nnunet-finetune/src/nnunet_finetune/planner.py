"""Plans whose network is that of a pretrained encoder, whatever the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnunet_builtin.planning.architecture import Topology
from nnunet_builtin.planning.patches import Candidate, Grid, Propose
from nnunet_builtin.planning.planner import PlannerV21
from nnunet_core.data.limits import BatchSize, Count, Millimetres

Triple = tuple[Count, Count, Count]


@dataclass
class PlannerOfEncoder(PlannerV21):
    """Plans one 3D network with the patch, spacing and poolings of the pretraining.

    Weights of an encoder fit equal poolings and kernels alone, and have seen structures of one size
    in voxels. Defaults are those of the encoders of nnssl's OpenMind (ResEncL). Other settings are
    those of `v21`.

    Args:
        patch: Voxels; rounded up to what the poolings can halve.
        poolings: How often each axis is halved; kernels are 3.
        patches_per_batch: The batch.
    """

    patch: Triple = (160, 160, 160)
    poolings: Count = 5
    patches_per_batch: BatchSize = 2
    target_spacing: tuple[Millimetres, Millimetres, Millimetres] | None = (1.0, 1.0, 1.0)
    configurations: tuple[str, ...] | None = ("3d_fullres",)
    low_resolution: bool = False
    schemes: Mapping[str, str] = field(default_factory=dict)  # z-score for every channel

    def choose_patch(self, grid: Grid, propose: Propose, budget: float) -> tuple[Candidate, str]:
        """Return the patch of the settings."""
        del grid, budget
        return propose(self.patch), "the patch is planner.patch, that of the pretraining"

    def choose_topology(self, spacing: np.ndarray, patch: Sequence[float]) -> Topology:
        """Return the poolings and kernels of the encoder, for any patch."""
        del spacing
        axes = len(patch)
        return Topology(((2,) * axes,) * self.poolings, ((3,) * axes,) * (self.poolings + 1))

    def choose_batch_size(self, grid: Grid, found: Candidate, budget: float) -> tuple[int, str]:
        """Return the batch of the settings."""
        del grid, found, budget
        return self.patches_per_batch, "the batch is planner.patches_per_batch"
