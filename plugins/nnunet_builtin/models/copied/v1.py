"""A plans.pkl of nnU-Net v1 as a source of plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from nnunet_builtin.models.copied.source import Source
from nnunet_builtin.models.v1_plans import Stage, V1Plans, check_patch
from nnunet_builtin.planning.assembly import MAX_FEATURES
from nnunet_builtin.untrusted.pickles import read_pickle
from nnunet_core.data.limits import Features, Layers
from nnunet_core.data.metadata import first_problem
from nnunet_core.data.plans import Kernels, NetworkSpec
from nnunet_core.errors import StorageError

_CONVOLUTIONS = 2  # of plans without a number
_POOLINGS = Annotated[int, Field(ge=0, le=16)]


class _Stage(Stage):
    """A stage with what its network is made of."""

    num_pool_per_axis: Annotated[tuple[_POOLINGS, ...], Field(min_length=2, max_length=3)]
    pool_op_kernel_sizes: Kernels | None = None
    conv_kernel_sizes: Kernels | None = None
    num_blocks_encoder: Any = None

    def pools(self) -> tuple[tuple[int, ...], ...]:
        """Return the strides; old plans have the number of each axis alone (spec: planning, section
        9).
        """
        if self.pool_op_kernel_sizes is not None:
            return self.pool_op_kernel_sizes
        counts = self.num_pool_per_axis
        deepest = max(counts)
        return tuple(
            tuple(2 if deepest - count <= step else 1 for count in counts)
            for step in range(deepest)
        )

    def kernels(self) -> tuple[tuple[int, ...], ...]:
        """Return the kernel of each resolution; old plans have 3 everywhere."""
        usual = ((3,) * len(self.patch_size),) * (len(self.pools()) + 1)
        return self.conv_kernel_sizes or usual


class _Plans(V1Plans):
    """Plans with what their networks are made of."""

    plans_per_stage: Annotated[dict[int, _Stage], Field(min_length=1, max_length=2)]  # type: ignore[assignment]
    base_num_features: Features
    conv_per_stage: Layers = _CONVOLUTIONS

    def network_stage(self, configuration: str) -> _Stage:
        """Return the stage of a configuration, see `stage`."""
        first, last = min(self.plans_per_stage), max(self.plans_per_stage)
        return self.plans_per_stage[first if configuration == "3d_lowres" else last]


def read_v1(path: Path) -> Source:
    """Return the configurations of a plans.pkl.

    Raises:
        StorageError: It holds no usable plans, or those of a residual network, whose weights say
            more of it than its plans.
    """
    plans = _Plans.of(read_pickle(path), path)
    found = {}
    for name in _names(plans):
        stage = plans.network_stage(name)
        cascade = name == "3d_cascade_fullres"
        spec = _network(plans, stage, plans.num_classes if cascade else 0, path)
        batch_dice = name == "2d" or (len(plans.plans_per_stage) > 1 and name != "3d_lowres")
        found[name] = plans.configuration(name, spec, batch_dice, path)
        check_patch(found[name], path)
    return Source("plans of nnU-Net v1", found, channels=plans.channels())


def _names(plans: _Plans) -> tuple[str, ...]:
    if len(plans.network_stage("").patch_size) == 2:
        return ("2d",)
    if len(plans.plans_per_stage) == 1:
        return ("3d_fullres",)
    return ("3d_lowres", "3d_fullres", "3d_cascade_fullres")


def _network(plans: _Plans, stage: _Stage, further_inputs: int, path: Path) -> NetworkSpec:
    if stage.num_blocks_encoder is not None:
        raise StorageError(
            f"{path} plans a residual network. Import its model, and give that: 'nnunet models "
            "import'."
        )
    dimensions: Literal[2, 3] = 2 if len(stage.patch_size) == 2 else 3
    try:
        return NetworkSpec(
            dimensions=dimensions,
            input_channels=plans.num_modalities + further_inputs,
            output_channels=plans.num_classes + 1,
            pool_kernels=stage.pools(),
            conv_kernels=stage.kernels(),
            base_features=plans.base_num_features,
            max_features=MAX_FEATURES[dimensions],
            convs_per_stage=plans.conv_per_stage,
        )
    except ValidationError as error:
        raise StorageError(
            f"{path} holds no usable plans of nnU-Net v1: {first_problem(error)}. Get an intact "
            "copy."
        ) from error
