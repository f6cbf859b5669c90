"""The builder of MONAI's UNETR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nnunet_core.data.limits import Features
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError
from nnunet_monai.memory import Measured

if TYPE_CHECKING:
    import torch

_TOKEN = 16


@dataclass(frozen=True)
class UNETR(Measured):
    """Builds UNETR (Hatamizadeh et al., arXiv 2103.10504): a transformer of 12 blocks on tokens of
    16 voxels per axis, and a decoder of convolutions. It is built for one patch size, that of the
    plans.

    Args:
        feature_size: Features at full resolution.
        hidden_size: Features of a token, a multiple of `num_heads`.
        mlp_dim: Features within a block.
        num_heads: Heads of the attention.
        proj_type: How voxels become tokens: `conv` or `perceptron`.
        dropout_rate: Share of features that are dropped in the transformer.
    """

    feature_size: Features = 16
    hidden_size: Features = 768
    mlp_dim: Annotated[int, Field(ge=1, le=65_536)] = 3072
    num_heads: Annotated[int, Field(ge=1, le=1_024)] = 12
    proj_type: Literal["conv", "perceptron"] = "conv"
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return the network for patches of `spec.patch_size` (contracts.NetworkBuilder), one head.

        Raises:
            UsageError: `hidden_size` is no multiple of `num_heads`, or there is no patch size.
        """
        from monai.networks import nets

        if self.hidden_size % self.num_heads:
            raise UsageError(
                f"network.hidden_size={self.hidden_size} is no multiple of "
                f"network.num_heads={self.num_heads}, among which it is divided."
            )
        if not spec.patch_size:
            raise UsageError("UNETR is built for one patch size; this specification has none.")
        network: torch.nn.Module = nets.UNETR(
            in_channels=spec.input_channels,
            out_channels=spec.output_channels,
            img_size=spec.patch_size,
            feature_size=self.feature_size,
            hidden_size=self.hidden_size,
            mlp_dim=self.mlp_dim,
            num_heads=self.num_heads,
            proj_type=self.proj_type,
            dropout_rate=self.dropout_rate,
            spatial_dims=spec.dimensions,
        )
        for weight, parameter in network.named_parameters():
            if "cross_attn" in weight:  # of other networks; several processes would wait for them
                parameter.requires_grad_(False)
        return network

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return the edge of a token, for every axis."""
        return (_TOKEN,) * spec.dimensions

    def terms(self, patch_size: Sequence[int]) -> list[float]:
        """Return one, the tokens, and their pairs, which attention looks at."""
        tokens = float(math.prod(size // _TOKEN for size in patch_size))
        return [1.0, tokens, tokens**2]

    def probes(self, spec: NetworkSpec) -> list[tuple[int, ...]]:
        """Return patches of three numbers of tokens."""
        return [(_TOKEN * n,) * spec.dimensions for n in (2, 4, 6)]
