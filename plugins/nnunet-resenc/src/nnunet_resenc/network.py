"""The builder of nnU-Net v2's residual-encoder U-Net: its sizes, and its count of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from nnunet_builtin.networks.estimate import BYTES_PER_VALUE
from nnunet_builtin.networks.plain_unet import Layout
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_core.data.limits import Layers
from nnunet_core.data.plans import NetworkSpec


@dataclass
class ResEncUNet(ResidualUNet):
    """Builds the network of v2's ResEnc presets; layers, and the settings that are not listed, are
    those of `residual_unet`.

    Args:
        blocks: Residual blocks, of two convolutions, at each resolution, the finest first.
        zero_init: Begin with residual blocks that add nothing, as v2 does.
        layout: `v2`, or `v1`.
    """

    blocks: Annotated[tuple[Layers, ...], Field(min_length=1)] = (1, 3, 4, *(6,) * 10)
    zero_init: bool = True
    layout: Layout = "v2"

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the bytes of training on one patch, as v2's planners count it: the outputs of all
        convolutions, and of the head at full resolution (contracts.NetworkBuilder).

        Args:
            spec: The network.
            patch_size: Voxels per axis, multiples of `divisor(spec)`.
        """
        blocks, depth = self._blocks(spec), len(spec.pool_kernels)
        features = self.features or tuple(spec.features(s) for s in range(depth + 1))
        decoder = self.decoder_convs or (1,) * depth
        strides = ((1,) * spec.dimensions, *spec.pool_kernels)
        sizes, before = list(patch_size), self.stem_features or features[0]
        values = before * math.prod(sizes) + spec.output_channels * math.prod(sizes)
        for stage, stride in enumerate(strides):
            sizes = [size // step for size, step in zip(sizes, stride, strict=True)]
            convs = 2 * blocks[stage]
            convs += before != features[stage] or math.prod(stride) > 1  # that of the first skip
            if stage < depth:
                convs += decoder[stage] + 1  # and the transposed one
            values += convs * features[stage] * math.prod(sizes)
            before = features[stage]
        return float(values) * BYTES_PER_VALUE
