"""The builder of the U-Net with a residual encoder, and its memory estimate (spec: network, section 9)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from nnunet_builtin.networks.plain_unet import check_groups
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from nnunet_builtin.networks.residual import ResidualEncoderUNet

#: What v1's planners allow the plain U-Net and this one, per dimensions: the estimate of one in units of the other.
_PLAIN_UNITS = {2: 19_739_648 * 25 / 1_244_233_721, 3: 520_000_000 * 32 / 30 / 1_230_348_801}
_ESTIMATED_BATCH = 2


@dataclass
class ResidualUNet:
    """Builds v1's U-Net with a residual encoder: more convolutions in the encoder, one per stage in the decoder.

    The planner's `convs_per_stage` has no effect on it.

    Args:
        blocks: Residual blocks, of two convolutions, at each resolution, the finest first.
        negative_slope: Of the leaky ReLU.
        norm: `instance`, `batch`, `group` (8 groups) or `none`.
        zero_init: Begin with residual blocks that add nothing; needs a norm.
    """

    blocks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (
        1,
        2,
        3,
        4,
        4,
        4,
        4,
        4,
        4,
        4,
        4,
    )
    negative_slope: NonNegativeFloat = 0.01
    norm: Literal["instance", "batch", "group", "none"] = "instance"
    zero_init: bool = False

    def build(self, spec: NetworkSpec) -> ResidualEncoderUNet:
        """Return the network (contracts.NetworkBuilder), initialised as v1 initialises it.

        Raises:
            UsageError: The plans have more resolutions than `blocks`, or features that cannot be grouped; zero_init
                without a norm.
        """
        from nnunet_builtin.networks.residual import ResidualEncoderUNet, begin_as_identity
        from nnunet_builtin.networks.style import Style
        from nnunet_builtin.networks.unet import initialise

        check_groups(self.norm, spec)
        if self.zero_init and self.norm == "none":
            raise UsageError(
                "network.zero_init begins with the last norm of each block; network.norm=none has none."
            )
        style = Style(
            norm=self.norm,
            negative_slope=self.negative_slope,
            own_kernels=True,
            head_bias=True,
            residual_blocks=self._blocks(spec),
        )
        network = ResidualEncoderUNet(spec, style)
        network.apply(initialise)
        if self.zero_init:
            network.apply(begin_as_identity)
        return network

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the planner's memory estimate, in units of the plain U-Net's (contracts.NetworkBuilder)."""
        sizes, volume, blocks = (
            [float(n) for n in patch_size],
            math.prod(patch_size),
            self._blocks(spec),
        )
        total = float(2 * blocks[0] + 1 + 2) * volume * spec.base_features
        total += (spec.input_channels + spec.output_channels) * volume
        stages = len(spec.pool_kernels)
        for stage, kernel in enumerate(spec.pool_kernels, start=1):
            sizes = [size / step for size, step in zip(sizes, kernel, strict=True)]
            decoder = 2 if stage < stages else 0
            total += (2 * blocks[stage] + 1 + decoder) * math.prod(sizes) * spec.features(stage)
        return total * _ESTIMATED_BATCH * _PLAIN_UNITS[spec.dimensions]

    def _blocks(self, spec: NetworkSpec) -> tuple[int, ...]:
        resolutions = len(spec.conv_kernels)
        if resolutions > len(self.blocks):
            raise UsageError(
                f"network.blocks={list(self.blocks)} has {len(self.blocks)} numbers; this network has {resolutions} resolutions. "
                "Give one number per resolution."
            )
        return self.blocks[:resolutions]
