"""The U-Net with a residual encoder of nnU-Net v1 (spec: network, section 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_builtin.networks.style import Style
from nnunet_builtin.networks.unet import Block, UNet, convolution, make_norm
from nnunet_core.data.plans import NetworkSpec


class ResidualBlock(nn.Module):
    """Two convolutions with norms around an activation; their result is added to the input, and
    activated.

    Where resolution or features change, the input goes through a convolution with kernels of 1, and
    a norm.
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
        self.first = Block(dimensions, inputs, outputs, kernel, stride, style, bias=False)
        self.second = convolution(dimensions, outputs, outputs, kernel, ones, bias=False)
        self.norm = make_norm(style.norm, dimensions, outputs)
        self.skip: nn.Module = nn.Identity()
        self.skip_norm: nn.Module = nn.Identity()
        if tuple(stride) != ones or inputs != outputs:
            self.skip = convolution(dimensions, inputs, outputs, ones, stride, bias=False)
            self.skip_norm = make_norm(style.norm, dimensions, outputs)
        self.activation = nn.LeakyReLU(style.negative_slope, inplace=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, *spatial) to (B, outputs, *spatial / stride)."""
        result = self.norm(self.second(self.first(features)))
        activated: torch.Tensor = self.activation(result + self.skip_norm(self.skip(features)))
        return activated


class ResidualEncoderUNet(UNet):
    """See `residual_unet.ResidualUNet`; attributes are those of `UNet`."""

    def encoder_stage(
        self, spec: NetworkSpec, stage: int, inputs: int, stride: Sequence[int], style: Style
    ) -> nn.Sequential:
        """Return the residual blocks of a resolution; the finest begins with a convolution that
        makes its features.
        """
        features = spec.features(stage)
        kernel = spec.conv_kernels[stage]
        ones = (1,) * spec.dimensions
        stem: list[nn.Module] = []
        if stage == 0:
            stem = [
                Block(
                    spec.dimensions,
                    inputs,
                    features,
                    (3,) * spec.dimensions,
                    ones,
                    style,
                    bias=False,
                )
            ]
            inputs = features
        first = ResidualBlock(spec.dimensions, inputs, features, kernel, stride, style)
        others = (
            ResidualBlock(spec.dimensions, features, features, kernel, ones, style)
            for _ in range(style.residual_blocks[stage] - 1)
        )
        return nn.Sequential(*stem, first, *others)

    def decoder_stage(
        self, spec: NetworkSpec, stage: int, kernel: Sequence[int], style: Style
    ) -> nn.Sequential:
        """Return one convolution."""
        features, ones = spec.features(stage), (1,) * spec.dimensions
        return nn.Sequential(
            Block(spec.dimensions, 2 * features, features, kernel, ones, style, bias=False)
        )


def begin_as_identity(module: nn.Module) -> None:
    """Let a residual block add nothing at first: the last norm's weight and bias are 0."""
    if isinstance(module, ResidualBlock):
        for parameter in module.norm.parameters():
            nn.init.zeros_(parameter)
