"""The U-Net of nnU-Net v1 (spec: network)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nnunet_builtin.networks.style import GROUPS, Style
from nnunet_core.data.plans import NetworkSpec

_CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_INSTANCE_NORM: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_EPSILON = 1e-5
_RESPONSE_EPSILON = 1e-6
_INITIAL_SLOPE = 0.01


class Block(nn.Sequential):
    """Convolution, norm, activation; or the activation before the norm.

    Maps (B, inputs, *spatial) to (B, outputs, *spatial / stride).
    """

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        style: Style,
        bias: bool = True,
    ) -> None:
        super().__init__()
        norm = make_norm(style.norm, dimensions, outputs)
        self.conv = convolution(dimensions, inputs, outputs, kernel, stride, bias)
        if not style.norm_last:
            self.norm = norm
        self.activation = make_activation(style)
        if style.norm_last:
            self.norm = norm


def convolution(
    dimensions: int,
    inputs: int,
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    bias: bool,
) -> nn.Module:
    """Return a convolution that keeps the size, but for its stride."""
    padding = tuple((size - 1) // 2 for size in kernel)
    made: nn.Module = _CONVOLUTION[dimensions](
        inputs, outputs, tuple(kernel), tuple(stride), padding, bias=bias
    )
    return made


def make_norm(name: str, dimensions: int, features: int) -> nn.Module:
    """Return a norm of features; see `Style`."""
    if name == "instance":
        instance: nn.Module = _INSTANCE_NORM[dimensions](features, _EPSILON, affine=True)
        return instance
    if name == "batch":
        batch: nn.Module = _BATCH_NORM[dimensions](features, _EPSILON)
        return batch
    if name == "group":
        return nn.GroupNorm(GROUPS, features, _EPSILON)
    return ResponseNorm(features) if name == "frn" else nn.Identity()


def make_activation(style: Style) -> nn.Module:
    """Return what follows a norm, or is followed by it; see `Style`."""
    if style.norm == "frn":
        return nn.Identity()  # it has its own
    if style.activation == "leaky_relu":
        return nn.LeakyReLU(style.negative_slope, inplace=True)
    return nn.GELU() if style.activation == "gelu" else nn.Mish()


class ResponseNorm(nn.Module):
    """Filter response normalisation and thresholded linear unit (Singh and Krishnan, 2020)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias, self.threshold = (
            nn.Parameter(torch.full((features,), value)) for value in (1.0, 0.0, 0.0)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C, *spatial) to the same shape."""
        axes = list(range(2, features.ndim))
        weight, bias, threshold = (
            p.view(-1, *[1] * len(axes)) for p in (self.weight, self.bias, self.threshold)
        )
        scale = torch.rsqrt(features.float().square().mean(axes, keepdim=True) + _RESPONSE_EPSILON)
        return torch.maximum(weight * (features * scale) + bias, threshold)


class Join(nn.Module):
    """A step of the decoder: the layers belong to the U-Net, this is what it does with them."""

    def forward(
        self, coarse: torch.Tensor, skip: torch.Tensor, up: nn.Module, stage: nn.Module
    ) -> torch.Tensor:
        """Return `stage` of upsampled coarse features beside those of the encoder.

        Args:
            coarse: (B, C, *spatial).
            skip: Features of the encoder (B, C', *spatial * stride).
            up: Transposed convolution.
            stage: Blocks of the decoder.
        """
        features: torch.Tensor = stage(torch.cat([up(coarse), skip], dim=1))
        return features


class UNet(nn.Module):
    """The network itself: (B, C, *patch) -> logits per resolution, full resolution first.

    Args:
        spec: Sizes.
        style: Norm, activation and layout.

    Attributes:
        deep_supervision: Return the logits of every resolution; False returns the full-resolution
            tensor alone.
        encoder: Blocks per resolution, finest first, bottleneck last.
        upsampling, decoder, heads: Per resolution, from the bottleneck upwards.
    """

    def __init__(self, spec: NetworkSpec, style: Style) -> None:
        super().__init__()
        self.deep_supervision = True
        dimensions, depth = spec.dimensions, len(spec.pool_kernels)
        ones, features = (1,) * dimensions, features_of(spec, style)
        strides, inputs = [ones, *spec.pool_kernels], [spec.input_channels, *features]
        kernels = spec.conv_kernels if style.own_kernels else spec.conv_kernels[1:]
        upwards = range(depth - 1, -1, -1)
        self.encoder = nn.ModuleList(
            self.encoder_stage(spec, stage, inputs[stage], strides[stage], style)
            for stage in range(depth + 1)
        )
        self.upsampling = nn.ModuleList(
            _TRANSPOSED[dimensions](
                features[s + 1],
                features[s],
                strides[s + 1],
                strides[s + 1],
                bias=style.upsampling_bias,
            )
            for s in upwards
        )
        self.join = Join()
        self.decoder = nn.ModuleList(
            self.decoder_stage(spec, s, kernels[s], style) for s in upwards
        )
        self.heads = nn.ModuleList(
            _CONVOLUTION[dimensions](features[s], spec.output_channels, 1, bias=style.head_bias)
            for s in upwards
        )

    def encoder_stage(
        self, spec: NetworkSpec, stage: int, inputs: int, stride: Sequence[int], style: Style
    ) -> nn.Sequential:
        """Return the blocks of a resolution; the first one has the stride."""
        convs = style.convs[stage] if style.convs else spec.convs_per_stage
        return _blocks(spec, stage, inputs, spec.conv_kernels[stage], stride, style, convs)

    def decoder_stage(
        self, spec: NetworkSpec, stage: int, kernel: Sequence[int], style: Style
    ) -> nn.Sequential:
        """Return the blocks of a resolution after upsampled and skipped features are joined."""
        inputs, ones = 2 * features_of(spec, style)[stage], (1,) * spec.dimensions
        convs = style.decoder_convs[stage] if style.decoder_convs else spec.convs_per_stage
        return _blocks(spec, stage, inputs, kernel, ones, style, convs)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor] | torch.Tensor:
        """Return logits; see the class."""
        skips = []
        features = images
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        logits: list[torch.Tensor] = []
        skips.pop()
        for up, stage, head in zip(self.upsampling, self.decoder, self.heads, strict=True):
            features = self.join(features, skips.pop(), up, stage)
            if self.deep_supervision or not skips:
                logits.insert(0, head(features))
        return logits if self.deep_supervision else logits[0]


def features_of(spec: NetworkSpec, style: Style) -> list[int]:
    """Return the features of every resolution, the finest first."""
    return list(style.features) or [spec.features(s) for s in range(len(spec.conv_kernels))]


def _blocks(
    spec: NetworkSpec,
    stage: int,
    inputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    style: Style,
    count: int,
) -> nn.Sequential:
    features, ones = features_of(spec, style)[stage], (1,) * spec.dimensions
    bias = style.conv_bias
    first = Block(spec.dimensions, inputs, features, kernel, stride, style, bias)
    others = (
        Block(spec.dimensions, features, features, kernel, ones, style, bias)
        for _ in range(count - 1)
    )
    return nn.Sequential(first, *others)


def initialise(module: nn.Module) -> None:
    """Kaiming normal for convolutions and transposed ones, 0 for their biases (spec: network,
    section 4).
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=_INITIAL_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
