"""The planner for networks that have strides of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from nnunet_builtin.planning.architecture import Topology
from nnunet_builtin.planning.planner import PlannerV21


@dataclass
class EvenPlanner(PlannerV21):
    """Plans as nnU-Net v2.1, for networks that halve every axis alike: the plans say what the
    network does, and patches are sized by its own memory and divisor.

    Args:
        halvings: How often the network halves the patch.
    """

    halvings: Annotated[int, Field(ge=0, le=10)] = 5

    def choose_topology(
        self,
        spacing: np.ndarray,  # noqa: ARG002 - the network does not look at it either
        patch: Sequence[float],
    ) -> Topology:
        """Return strides of 2 and kernels of 3 along every axis, whatever the spacing."""
        axes = len(patch)
        return Topology(((2,) * axes,) * self.halvings, ((3,) * axes,) * (self.halvings + 1))
