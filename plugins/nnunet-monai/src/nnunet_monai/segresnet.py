"""Builders of MONAI's SegResNet, and of SegResNetDS, which has deep supervision and follows
anisotropic voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from nnunet_core.data.limits import Features, Layers
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError
from nnunet_monai.memory import Measured

if TYPE_CHECKING:
    import torch

Blocks = Annotated[tuple[Layers, ...], Field(min_length=1, max_length=8)]
_GROUPS = 8
_MOST_HEADS = 8


@dataclass(frozen=True)
class SegResNet(Measured):
    """Builds SegResNet (Myronenko, arXiv 1810.11654, without its autoencoder): residual blocks with
    group norm, linear upsampling; every axis is halved alike.

    Args:
        init_filters: Features at full resolution, a multiple of 8; doubled at each halving.
        blocks_down: Residual blocks at each resolution of the encoder, the finest first.
        blocks_up: Those of the decoder at each resolution but the coarsest, the coarser first.
        dropout_prob: Share of features that are dropped after the first convolution.
    """

    init_filters: Features = 32
    blocks_down: Blocks = (1, 2, 2, 4)
    blocks_up: tuple[Layers, ...] = (1, 1, 1)
    dropout_prob: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return the network (contracts.NetworkBuilder), one head.

        Raises:
            UsageError: `blocks_up` has not a number for each halving, or the features cannot be
                grouped.
        """
        from monai.networks import nets

        check_blocks(self.blocks_down, self.blocks_up)
        check_groups(self.init_filters)
        network: torch.nn.Module = nets.SegResNet(
            spatial_dims=spec.dimensions,
            in_channels=spec.input_channels,
            out_channels=spec.output_channels,
            init_filters=self.init_filters,
            blocks_down=self.blocks_down,
            blocks_up=self.blocks_up,
            dropout_prob=self.dropout_prob or None,
        )
        return network

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return 2 to the power of the halvings, for every axis."""
        return (2 ** (len(self.blocks_down) - 1),) * spec.dimensions


@dataclass(frozen=True)
class SegResNetDS(Measured):
    """Builds SegResNetDS, the network of MONAI's Auto3DSeg: SegResNet with heads at several
    resolutions, transposed convolutions and instance norm.

    An axis that the plans do not pool at first, because its voxels are thicker, is not halved at
    first here either.

    Args:
        init_filters: Features at full resolution; doubled at each halving.
        blocks_down: Residual blocks at each resolution of the encoder, the finest first.
        dsdepth: Resolutions that have a head, the finest first.
    """

    init_filters: Features = 32
    blocks_down: Annotated[tuple[Layers, ...], Field(min_length=2, max_length=8)] = (1, 2, 2, 4, 4)
    dsdepth: Annotated[int, Field(ge=1, le=_MOST_HEADS)] = 4

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return the network (contracts.NetworkBuilder); heads beside the first one in training
        only.
        """
        from nnunet_monai.modules import SegResNetHeads, taking_single_voxels

        network = SegResNetHeads(
            spatial_dims=spec.dimensions,
            in_channels=spec.input_channels,
            out_channels=spec.output_channels,
            init_filters=self.init_filters,
            norm="instance",
            blocks_down=self.blocks_down,
            dsdepth=min(self.dsdepth, len(self.blocks_down) - 1),
            resolution=_resolution(self._waits(spec)),
        )
        return taking_single_voxels(network)

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return the product of the strides per axis."""
        halvings = len(self.blocks_down) - 1
        return tuple(2 ** (halvings - wait) for wait in self._waits(spec))

    def _waits(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return at how many resolutions, from the finest on, each axis is not halved yet."""
        first_pools = []
        for axis in range(spec.dimensions):
            strides = [stride[axis] for stride in spec.pool_kernels]
            first_pools.append(
                next((n for n, step in enumerate(strides) if step > 1), len(strides))
            )
        # at the coarsest resolution each axis is halved, or slices would not see each other at all:
        # SegResNetDS has kernels of 1 where it has strides of 1
        most = len(self.blocks_down) - 2
        return tuple(min(first - min(first_pools), most) for first in first_pools)


def _resolution(waits: Sequence[int]) -> tuple[float, ...] | None:
    """Return the size of voxels as MONAI wants it: only their ratios count."""
    return tuple(2.0**wait for wait in waits) if any(waits) else None


def check_blocks(blocks_down: Sequence[int], blocks_up: Sequence[int]) -> None:
    """Raise UsageError where the decoder has not a number for each halving."""
    if len(blocks_up) != len(blocks_down) - 1:
        raise UsageError(
            f"network.blocks_up={list(blocks_up)} has {len(blocks_up)} numbers; "
            f"network.blocks_down={list(blocks_down)} halves {len(blocks_down) - 1} times. Give "
            "blocks_up one number for each."
        )


def check_groups(features: int) -> None:
    """Raise UsageError where features cannot be divided into 8 groups."""
    if features % _GROUPS:
        raise UsageError(
            f"network.init_filters={features} is no multiple of {_GROUPS}, the groups of "
            f"SegResNet's norm. Choose {max(_GROUPS, features // _GROUPS * _GROUPS)} or "
            f"{(features // _GROUPS + 1) * _GROUPS}."
        )
