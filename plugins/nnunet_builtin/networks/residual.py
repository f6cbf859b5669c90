"""The U-Nets with a residual encoder of nnU-Net v1 (spec: network, section 9) and v2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_builtin.networks.style import Style
from nnunet_builtin.networks.unet import (
    Block,
    UNet,
    convolution,
    features_of,
    make_activation,
    make_norm,
)
from nnunet_core.data.plans import NetworkSpec

_POOLING = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class ResidualBlock(nn.Module):
    """Two convolutions with norms around an activation; their result is added to the input, and
    activated.

    Where resolution or features change, the input goes through a convolution with kernels of 1, and
    a norm; in the layout of v2, the resolution is a mean of voxels, and the convolution is left out
    where the features stay.
    """

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        style: Style,
    ) -> None:
        super().__init__()
        ones = (1,) * dimensions
        bias = style.conv_bias
        self.first = Block(dimensions, inputs, outputs, kernel, stride, style, bias)
        self.second = convolution(dimensions, outputs, outputs, kernel, ones, bias)
        self.norm = make_norm(style.norm, dimensions, outputs)
        self.pool: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        self.skip_norm: nn.Module = nn.Identity()
        if style.pooled_skips and tuple(stride) != ones:
            self.pool, stride = _POOLING[dimensions](tuple(stride)), ones
        if tuple(stride) != ones or inputs != outputs:
            self.skip = convolution(dimensions, inputs, outputs, ones, stride, bias=False)
            self.skip_norm = make_norm(style.norm, dimensions, outputs)
        self.activation = make_activation(style)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, *spatial) to (B, outputs, *spatial / stride)."""
        result = self.norm(self.second(self.first(features)))
        activated: torch.Tensor = self.activation(
            result + self.skip_norm(self.skip(self.pool(features)))
        )
        return activated


class ResidualEncoderUNet(UNet):
    """See `residual_unet.ResidualUNet`; attributes are those of `UNet`."""

    def encoder_stage(
        self, spec: NetworkSpec, stage: int, inputs: int, stride: Sequence[int], style: Style
    ) -> nn.Sequential:
        """Return the residual blocks of a resolution; the finest begins with a convolution that
        makes its features.
        """
        features, kernel = features_of(spec, style)[stage], spec.conv_kernels[stage]
        ones = (1,) * spec.dimensions
        stem: list[nn.Module] = []
        if stage == 0:
            stem = [self._stem(spec, inputs, style)]
            inputs = style.stem_features or features
        first = ResidualBlock(spec.dimensions, inputs, features, kernel, stride, style)
        others = (
            ResidualBlock(spec.dimensions, features, features, kernel, ones, style)
            for _ in range(style.residual_blocks[stage] - 1)
        )
        return nn.Sequential(*stem, first, *others)

    def _stem(self, spec: NetworkSpec, inputs: int, style: Style) -> Block:
        """Return the convolution that makes the first features; v1's has a kernel of its own."""
        dimensions, features = spec.dimensions, style.stem_features or features_of(spec, style)[0]
        kernel = spec.conv_kernels[0] if style.pooled_skips else (3,) * dimensions
        ones = (1,) * dimensions
        return Block(dimensions, inputs, features, kernel, ones, style, style.conv_bias)


def begin_as_identity(module: nn.Module) -> None:
    """Let a residual block add nothing at first: the last norm's weight and bias are 0."""
    if isinstance(module, ResidualBlock):
        for parameter in module.norm.parameters():
            nn.init.zeros_(parameter)
