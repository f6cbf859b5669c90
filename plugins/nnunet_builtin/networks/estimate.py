"""What U-Nets say of themselves to planners: memory in bytes, and the divisor of patch sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunet_core.data.plans import NetworkSpec

#: A convolution leaves two float32 values per feature and voxel for the gradients: its output, and
#: that after norm and activation. A power of two, so that comparisons are those of v1, which counts
#: values, to the last bit.
BYTES_PER_VALUE = 8

#: What v1's planners allow a patch of the plain U-Net and two of the residual one, per dimensions:
#: the ratio of the two.
PLAIN_VALUES = {2: 19_739_648 * 25 / 1_244_233_721, 3: 520_000_000 * 32 / 30 / 1_230_348_801}
_ESTIMATED_BATCH = 2


def unet_memory(spec: NetworkSpec, patch_size: Sequence[int]) -> float:
    """Return the bytes that training the U-Net on one patch keeps (spec: planning, section 5).

    They stand for the feature maps that wait for the gradients, in float32: what PyTorch keeps is
    within 2 % of it; in mixed precision it keeps about half. Left out are weights, their gradients
    and momentum, the gradients of feature maps, and what a convolution needs to work: they have to
    fit beside it, so that a card of 8 GB takes two patches of 4.4 GB.

    Args:
        spec: The network.
        patch_size: Voxels per axis, multiples of `pooling_divisor(spec)`.
    """
    convs = 2 * spec.convs_per_stage + 1  # encoder and decoder, and the transposed convolution
    sizes = list(patch_size)
    volume = math.prod(sizes)
    values = convs * volume * spec.base_features
    values += (spec.input_channels + spec.output_channels) * volume
    stages = len(spec.pool_kernels)
    for stage, kernel in enumerate(spec.pool_kernels, start=1):
        sizes = [size // step for size, step in zip(sizes, kernel, strict=True)]
        count = convs if stage < stages else spec.convs_per_stage
        values += count * math.prod(sizes) * spec.features(stage)
    return float(values) * BYTES_PER_VALUE


def residual_unet_memory(
    spec: NetworkSpec, patch_size: Sequence[int], blocks: Sequence[int]
) -> float:
    """Return the bytes that training the U-Net with a residual encoder on one patch counts as
    (spec: network, section 9).

    A value of it counts as 0.90 values of the plain U-Net (2D: 0.79), so that one budget serves
    both: v1 has one for each. What PyTorch keeps is 7 % more (2D: 21 %). What is left out is what
    `unet_memory` leaves out.

    Args:
        spec: The network.
        patch_size: Voxels per axis, multiples of `pooling_divisor(spec)`.
        blocks: Residual blocks at each resolution, the finest first; as many as resolutions.
    """
    sizes = [float(size) for size in patch_size]
    volume = math.prod(patch_size)
    values = float(2 * blocks[0] + 1 + 2) * volume * spec.base_features
    values += (spec.input_channels + spec.output_channels) * volume
    stages = len(spec.pool_kernels)
    for stage, kernel in enumerate(spec.pool_kernels, start=1):
        sizes = [size / step for size, step in zip(sizes, kernel, strict=True)]
        decoder = 2 if stage < stages else 0
        values += (2 * blocks[stage] + 1 + decoder) * math.prod(sizes) * spec.features(stage)
    return values * _ESTIMATED_BATCH * PLAIN_VALUES[spec.dimensions] * BYTES_PER_VALUE


def pooling_divisor(spec: NetworkSpec) -> tuple[int, ...]:
    """Return the product of the strides per axis: a patch of its multiples is halved without a rest
    at each pooling.
    """
    kernels = zip(*spec.pool_kernels, strict=True)
    return tuple(map(math.prod, kernels)) or (1,) * spec.dimensions
