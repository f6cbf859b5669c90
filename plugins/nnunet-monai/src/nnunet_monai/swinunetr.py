"""The builder of MONAI's SwinUNETR."""

from __future__ import annotations

import math
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

_STAGES = 4
_DIVISOR = 2 ** (_STAGES + 1)
#: Patches that are counted, in multiples of the divisor: windows cut off at the border of each
#: stage differ from patch to patch, and some stages are smaller than a window. Of many tried, these
#: predict others best.
_PROBES = {
    2: ((1, 2), (2, 2), (1, 5), (1, 8), (4, 4), (4, 16), (5, 16), (16, 16)),
    3: ((1, 1, 3), (1, 4, 4), (2, 4, 4), (1, 1, 16), (4, 4, 5), (3, 5, 8), (1, 4, 16), (4, 5, 16)),
}
_FOUR = Annotated[tuple[Layers, ...], Field(min_length=_STAGES, max_length=_STAGES)]


@dataclass(frozen=True)
class SwinUNETR(Measured):
    """Builds SwinUNETR (Hatamizadeh et al., arXiv 2201.01266): a transformer with attention within
    shifted windows, on tokens of two voxels per axis, and a decoder of convolutions.

    Args:
        feature_size: Features at half resolution, a multiple of 12 and of the first of `num_heads`.
        depths: Blocks of the transformer at each of its four resolutions, the finest first.
        num_heads: Heads of the attention at each of them.
        window_size: Edge of a window in tokens.
        use_v2: A residual block of convolutions before each resolution (SwinUNETR-V2).
        drop_rate, attn_drop_rate: Share of features, and of attention, that is dropped.
        dropout_path_rate: Share of blocks that are left out, rising to this in the last one.
    """

    feature_size: Features = 48
    depths: _FOUR = (2, 2, 2, 2)
    num_heads: _FOUR = (3, 6, 12, 24)
    window_size: Annotated[int, Field(ge=1, le=64)] = 7
    use_v2: bool = False
    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attn_drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return the network (contracts.NetworkBuilder), one head.

        Raises:
            UsageError: The features cannot be divided among the heads.
        """
        from monai.networks import nets

        from nnunet_monai.modules import NumbersOnCpu, taking_single_voxels

        self._check_heads()
        with NumbersOnCpu():
            network: torch.nn.Module = nets.SwinUNETR(
                in_channels=spec.input_channels,
                out_channels=spec.output_channels,
                feature_size=self.feature_size,
                depths=self.depths,
                num_heads=self.num_heads,
                window_size=self.window_size,
                use_v2=self.use_v2,
                drop_rate=self.drop_rate,
                attn_drop_rate=self.attn_drop_rate,
                dropout_path_rate=self.dropout_path_rate,
                spatial_dims=spec.dimensions,
            )
        return taking_single_voxels(network)

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return 32 for every axis: tokens of two voxels, halved four times."""
        return (_DIVISOR,) * spec.dimensions

    def terms(self, patch_size: Sequence[int]) -> list[float]:
        """Return one, the voxels, and for each resolution the tokens of whole windows and the pairs
        that attention looks at.
        """
        found = [1.0, float(math.prod(patch_size))]
        for stage in range(_STAGES):
            grid = [size // 2 ** (stage + 1) for size in patch_size]
            window = [min(self.window_size, size) for size in grid]
            pairs = zip(grid, window, strict=True)
            tokens = float(math.prod(math.ceil(size / step) * step for size, step in pairs))
            found += [tokens, tokens * math.prod(window)]
        return found

    def probes(self, spec: NetworkSpec) -> list[tuple[int, ...]]:
        """Return patches of many shapes."""
        return [tuple(_DIVISOR * n for n in shape) for shape in _PROBES[spec.dimensions]]

    def _check_heads(self) -> None:
        if self.feature_size % 12:
            raise UsageError(
                f"network.feature_size={self.feature_size} is no multiple of 12, as SwinUNETR "
                "needs it."
            )
        for stage, heads in enumerate(self.num_heads):
            features = self.feature_size * 2**stage
            if features % heads:
                raise UsageError(
                    f"network.num_heads={list(self.num_heads)}: {features} features, those of "
                    f"resolution {stage + 1}, cannot be divided among {heads} heads."
                )
