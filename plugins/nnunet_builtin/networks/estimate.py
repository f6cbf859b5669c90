"""The memory estimate of the U-Net that planning compares patch sizes with (spec: planning, section 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunet_core.data.plans import NetworkSpec


def unet_memory(spec: NetworkSpec, patch_size: Sequence[int]) -> float:
    """Return the number of feature-map values that training on one patch holds; no bytes, but proportional to them."""
    convs = 2 * spec.convs_per_stage + 1
    sizes = list(patch_size)
    volume = math.prod(sizes)
    total = (
        convs * volume * spec.base_features + (spec.input_channels + spec.output_channels) * volume
    )
    stages = len(spec.pool_kernels)
    for stage, kernel in enumerate(spec.pool_kernels, start=1):
        sizes = [size // step for size, step in zip(sizes, kernel, strict=True)]
        count = convs if stage < stages else spec.convs_per_stage
        total += count * math.prod(sizes) * spec.features(stage)
    return float(total)
