"""The U-Net of nnU-Net v1 (spec: network)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nnunet_builtin.computing.devices import CHANNELS_LAST
from nnunet_builtin.networks.cpu.coarse import is_worthwhile, upsampled_convolution
from nnunet_builtin.networks.cpu.winograd import convolve
from nnunet_builtin.networks.style import GROUPS, Style
from nnunet_core.data.plans import NetworkSpec

_CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_EPSILON = 1e-5
_RESPONSE_EPSILON = 1e-6
_INITIAL_SLOPE = 0.01


class Block(nn.Module):
    """Convolution, norm, activation; or the activation before the norm."""

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
        self.conv = convolution(dimensions, inputs, outputs, kernel, stride, bias)
        self.norm = make_norm(style.norm, dimensions, outputs)
        self.style = style
        self.usual = (style.norm, style.activation, style.norm_last) == (
            "instance",
            "leaky_relu",
            False,
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, *spatial) to (B, outputs, *spatial / stride)."""
        return self.activated(convolve(self.conv, features))

    def activated(self, features: torch.Tensor) -> torch.Tensor:
        """Return convolved features after norm and activation; they may be overwritten."""
        if self.usual:
            return instance_normed(features, self.norm, self.style.negative_slope)
        if self.style.norm_last:
            return normed(self._activation(features), self.norm, self.style)
        return self._activation(normed(features, self.norm, self.style))

    def _activation(self, features: torch.Tensor) -> torch.Tensor:
        if self.style.norm == "frn":
            return features  # it has its own
        if self.style.activation == "leaky_relu":
            return functional.leaky_relu(features, self.style.negative_slope, inplace=True)
        return (
            functional.gelu(features)
            if self.style.activation == "gelu"
            else functional.mish(features)
        )


def normed(features: torch.Tensor, norm: Any, style: Style) -> torch.Tensor:
    """Return features after a norm alone."""
    result: torch.Tensor = (
        instance_normed(features, norm) if style.norm == "instance" else norm(features)
    )
    return result


def instance_normed(features: torch.Tensor, norm: Any, slope: float = 1.0) -> torch.Tensor:
    """Return features after an instance norm and a leaky ReLU; a slope of 1 is none. They may be overwritten.

    Args:
        features: (B, C, *spatial).
        norm: Group norm with one group per feature.
        slope: Of the leaky ReLU.
    """
    kind, compiling = (
        features.device.type,
        torch.compiler.is_compiling(),
    )  # compilers fuse better what they can see
    if (
        kind == "cpu"
        and not compiling
        and features.is_contiguous(memory_format=CHANNELS_LAST[features.ndim - 2])
    ):
        fused: torch.Tensor = _NormActivation.apply(features, norm.weight, norm.bias, slope)
        return fused
    if kind == "cuda" or compiling:  # mixed precision would compute a group norm in float32
        features = functional.instance_norm(
            features, weight=norm.weight, bias=norm.bias, eps=_EPSILON
        )
    else:
        features = norm(features)
    return features if slope == 1 else functional.leaky_relu(features, slope, inplace=True)


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
    if name == "batch":
        return _BATCH_NORM[dimensions](features, _EPSILON)
    if name == "frn":
        return ResponseNorm(features)
    if name == "none":
        return nn.Identity()
    return nn.GroupNorm(features if name == "instance" else GROUPS, features, _EPSILON)


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


class _NormActivation(torch.autograd.Function):
    """Instance norm and leaky ReLU in channels-last order on CPU.

    PyTorch's own ways are slow there (instance norm copies to the other order, group norm is slow backwards) or inexact
    (group norm subtracts the squared mean from the mean of squares). Its batch norm is fast and exact, and the batch norm of
    one sample is an instance norm.
    """

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, slope: float
    ) -> torch.Tensor:
        activated = torch.empty_like(features)
        mean, scale = (weight.new_empty(features.shape[:2]) for _ in range(2))
        for index in range(len(features)):
            sample = slice(index, index + 1)
            out = (activated[sample], mean[index], scale[index])
            torch.native_batch_norm(
                features[sample], weight, bias, None, None, True, 0.0, _EPSILON, out=out
            )
            functional.leaky_relu_(activated[sample], slope)
        ctx.save_for_backward(features, activated, weight, mean, scale)
        ctx.slope = slope
        return activated

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, activated, weight, mean, scale = ctx.saved_tensors
        result = torch.empty_like(features)
        weight_gradient, bias_gradient = torch.zeros_like(weight), torch.zeros_like(weight)
        for index in range(len(features)):
            sample = slice(index, index + 1)
            gradient = torch.ops.aten.leaky_relu_backward(
                gradients[0][sample], activated[sample], ctx.slope, True
            )
            by_features, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
                gradient,
                features[sample],
                weight,
                None,
                None,
                mean[index],
                scale[index],
                True,
                _EPSILON,
                [True, True, True],
            )
            result[sample] = by_features
            weight_gradient += by_weight
            bias_gradient += by_bias
        return result, weight_gradient, bias_gradient, None


class UNet(nn.Module):
    """The network itself: (B, C, *patch) -> logits per resolution, full resolution first.

    Args:
        spec: Sizes.
        style: Norm, activation and layout.

    Attributes:
        deep_supervision: Return the logits of every resolution; False returns the full-resolution tensor alone.
        encoder: Blocks per resolution, finest first, bottleneck last.
        upsampling, decoder, heads: Per resolution, from the bottleneck upwards.
    """

    def __init__(self, spec: NetworkSpec, style: Style) -> None:
        super().__init__()
        self.deep_supervision = True
        dimensions, depth = spec.dimensions, len(spec.pool_kernels)
        ones, features = (1,) * dimensions, [spec.features(stage) for stage in range(depth + 1)]
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
        return _blocks(spec, stage, inputs, spec.conv_kernels[stage], stride, style)

    def decoder_stage(
        self, spec: NetworkSpec, stage: int, kernel: Sequence[int], style: Style
    ) -> nn.Sequential:
        """Return the blocks of a resolution after upsampled and skipped features are joined."""
        return _blocks(spec, stage, 2 * spec.features(stage), kernel, (1,) * spec.dimensions, style)

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
            features = _decoded(up, stage, features, skips.pop())
            if self.deep_supervision or not skips:
                logits.insert(0, head(features))
        return logits if self.deep_supervision else logits[0]


def _blocks(
    spec: NetworkSpec,
    stage: int,
    inputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    style: Style,
) -> nn.Sequential:
    features, ones = spec.features(stage), (1,) * spec.dimensions
    first = Block(spec.dimensions, inputs, features, kernel, stride, style)
    others = (
        Block(spec.dimensions, features, features, kernel, ones, style)
        for _ in range(spec.convs_per_stage - 1)
    )
    return nn.Sequential(first, *others)


def _decoded(up: nn.Module, stage: Any, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """Return the features of a decoder stage from those of the stage below it and of the encoder."""
    first, *others = stage
    if is_worthwhile(up, first.conv, coarse):
        features = first.activated(upsampled_convolution(up, first.conv, coarse, skip))
    else:
        features = first(torch.cat([up(coarse), skip], dim=1))
    for block in others:
        features = block(features)
    return features


def initialise(module: nn.Module) -> None:
    """Kaiming normal for convolutions and transposed ones, 0 for their biases (spec: network, section 4)."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=_INITIAL_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
