"""The builder of MONAI's DynUNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunet_builtin.networks.estimate import pooling_divisor
from nnunet_core.data.limits import Features
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError
from nnunet_monai.memory import Measured

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DynUNet(Measured):
    """Builds DynUNet with the strides, kernels and features of the plans, and a head at each
    resolution but the coarsest.

    Args:
        res_block: Residual blocks.
        filters: Features at each resolution, the finest first, in the place of those of the plans.
        trans_bias: Biases in transposed convolutions.
    """

    res_block: bool = False
    filters: tuple[Features, ...] = ()
    trans_bias: bool = False

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return the network (contracts.NetworkBuilder); heads beside the first one in training
        only.

        Raises:
            UsageError: The plans have less than three resolutions, which DynUNet needs, or
                `filters` has not a number for each.
        """
        from nnunet_monai.modules import DynUNetHeads, taking_single_voxels

        depth = len(spec.pool_kernels)
        if depth < 2:
            raise UsageError(
                f"DynUNet needs three resolutions; these plans have {depth + 1}. Their patches "
                "are too short to be halved more often: use another network (--network plain_unet)."
            )
        if self.filters and len(self.filters) != depth + 1:
            raise UsageError(
                f"network.filters={list(self.filters)} has {len(self.filters)} numbers; this "
                f"network needs {depth + 1}, the finest resolution first, or none: then the plans "
                "decide."
            )
        network = DynUNetHeads(
            spatial_dims=spec.dimensions,
            in_channels=spec.input_channels,
            out_channels=spec.output_channels,
            kernel_size=spec.conv_kernels,
            strides=((1,) * spec.dimensions, *spec.pool_kernels),
            upsample_kernel_size=spec.pool_kernels,
            filters=self.filters or tuple(spec.features(stage) for stage in range(depth + 1)),
            deep_supervision=True,
            deep_supr_num=depth - 1,
            res_block=self.res_block,
            trans_bias=self.trans_bias,
        )
        return taking_single_voxels(network)

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return the product of the strides per axis."""
        return pooling_divisor(spec)
