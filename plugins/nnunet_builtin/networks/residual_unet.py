"""The builder of U-Nets with a residual encoder (spec: network, section 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat

from nnunet_builtin.networks.estimate import pooling_divisor, residual_unet_memory
from nnunet_builtin.networks.plain_unet import Activation, Layout, check_counts, check_groups
from nnunet_core.data.limits import Features, Layers
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from nnunet_builtin.networks.residual import ResidualEncoderUNet
    from nnunet_builtin.networks.style import Style


@dataclass
class ResidualUNet:
    """Builds v1's U-Net with a residual encoder: more convolutions in the encoder, one per stage in
    the decoder.

    The planner's `convs_per_stage` has no effect on it.

    Args:
        blocks: Residual blocks, of two convolutions, at each resolution, the finest first.
        negative_slope: Of the leaky ReLU.
        norm: `instance`, `batch`, `group` (8 groups) or `none`.
        zero_init: Begin with residual blocks that add nothing; needs a norm.
        layout: `v1`, or `v2`: its ResidualEncoderUNet, with biases, whose skips take the mean where
            the resolution changes. Weights of v2 fit their layout whole.
        activation: `leaky_relu`, `gelu` or `mish`.
        conv_bias: Biases in convolutions; by default those of the layout.
        features: At each resolution, the finest first, in the place of those of the plans.
        decoder_convs: Convolutions of the decoder at each resolution but the coarsest, the finest
            first; by default one.
        stem_features: Of the first convolution; 0 is those of the finest resolution.
    """

    blocks: Annotated[tuple[Layers, ...], Field(min_length=1)] = (
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
    layout: Layout = "v1"
    activation: Activation = "leaky_relu"
    conv_bias: bool | None = None
    features: tuple[Features, ...] = ()
    decoder_convs: tuple[Layers, ...] = ()
    stem_features: Annotated[int, Field(ge=0, le=8_192)] = 0

    def build(self, spec: NetworkSpec) -> ResidualEncoderUNet:
        """Return the network (contracts.NetworkBuilder), initialised as v1 initialises it.

        Raises:
            UsageError: The plans have more resolutions than `blocks`, or features that cannot be
                grouped; a setting has not a number for each resolution; zero_init without a norm.
        """
        from nnunet_builtin.networks.residual import ResidualEncoderUNet, begin_as_identity
        from nnunet_builtin.networks.unet import initialise

        check_groups(self.norm, spec)
        if self.zero_init and self.norm == "none":
            raise UsageError(
                "network.zero_init begins with the last norm of each block; network.norm=none has "
                "none."
            )
        check_counts(spec, features=self.features, decoder_convs=self.decoder_convs)
        network = ResidualEncoderUNet(spec, self._style(spec))
        network.apply(initialise)
        if self.zero_init:
            network.apply(begin_as_identity)
        return network

    def _style(self, spec: NetworkSpec) -> Style:
        from nnunet_builtin.networks.style import Style

        v2 = self.layout == "v2"
        bias = v2 if self.conv_bias is None else self.conv_bias
        return Style(
            norm=self.norm,
            activation=self.activation,
            negative_slope=self.negative_slope,
            own_kernels=True,
            conv_bias=bias,
            upsampling_bias=v2 and bias,
            head_bias=True,
            features=self.features,
            decoder_convs=self.decoder_convs or (1,) * len(spec.pool_kernels),
            residual_blocks=self._blocks(spec),
            stem_features=self.stem_features,
            pooled_skips=v2,
        )

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the bytes of training on one patch (contracts.NetworkBuilder)."""
        return residual_unet_memory(spec, patch_size, self._blocks(spec))

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return what patch sizes are multiples of (contracts.NetworkBuilder)."""
        return pooling_divisor(spec)

    def _blocks(self, spec: NetworkSpec) -> tuple[int, ...]:
        resolutions = len(spec.conv_kernels)
        if resolutions > len(self.blocks):
            raise UsageError(
                f"network.blocks={list(self.blocks)} has {len(self.blocks)} numbers; this network "
                f"has {resolutions} resolutions. Give one number per resolution."
            )
        return self.blocks[:resolutions]
