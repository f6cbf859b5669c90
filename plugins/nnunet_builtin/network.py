"""The U-Net of nnU-Net v1 (spec: network)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nnunet_builtin.coarse import is_worthwhile, upsampled_convolution
from nnunet_builtin.devices import CHANNELS_LAST
from nnunet_builtin.plain_unet import GROUPS, PlainUNet
from nnunet_core.plans import NetworkSpec

_CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_EPSILON = 1e-5
_RESPONSE_EPSILON = 1e-6
_INITIAL_SLOPE = 0.01


class Block(nn.Module):
    """Convolution, norm, activation; or the activation before the norm."""

    def __init__(
        self, dimensions: int, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int], style: PlainUNet
    ) -> None:
        super().__init__()
        padding = tuple((size - 1) // 2 for size in kernel)
        self.conv = _CONVOLUTION[dimensions](inputs, outputs, tuple(kernel), tuple(stride), padding)
        self.norm = _norm(style.norm, dimensions, outputs)
        self.style = style
        self.usual = (style.norm, style.activation, style.norm_last) == ("instance", "leaky_relu", False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, *spatial) to (B, outputs, *spatial / stride)."""
        return self.activated(self.conv(features))

    def activated(self, features: torch.Tensor) -> torch.Tensor:
        """Return convolved features after norm and activation; they may be overwritten."""
        on_cpu = features.device.type == "cpu"
        if self.usual and on_cpu and features.is_contiguous(memory_format=CHANNELS_LAST[features.ndim - 2]):
            return _NormActivation.apply(features, self.norm.weight, self.norm.bias, self.style.negative_slope)
        if self.style.norm_last:
            return self._normed(self._activation(features))
        return self._activation(self._normed(features))

    def _normed(self, features: torch.Tensor) -> torch.Tensor:
        norm: Any = self.norm
        if self.style.norm == "instance" and features.device.type == "cuda":  # a group norm would compute in float32
            return functional.instance_norm(features, weight=norm.weight, bias=norm.bias, eps=_EPSILON)
        normed: torch.Tensor = norm(features)
        return normed

    def _activation(self, features: torch.Tensor) -> torch.Tensor:
        if self.style.norm == "frn":
            return features  # it has its own
        if self.style.activation == "leaky_relu":
            return functional.leaky_relu(features, self.style.negative_slope, inplace=True)
        return functional.gelu(features) if self.style.activation == "gelu" else functional.mish(features)


def _norm(name: str, dimensions: int, features: int) -> nn.Module:
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
        weight, bias, threshold = (p.view(-1, *[1] * len(axes)) for p in (self.weight, self.bias, self.threshold))
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
            torch.native_batch_norm(features[sample], weight, bias, None, None, True, 0.0, _EPSILON, out=out)
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
            gradient = torch.ops.aten.leaky_relu_backward(gradients[0][sample], activated[sample], ctx.slope, True)
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

    def __init__(self, spec: NetworkSpec, style: PlainUNet) -> None:
        super().__init__()
        self.deep_supervision = True
        dimensions, depth, convs = spec.dimensions, len(spec.pool_kernels), spec.convs_per_stage
        ones = (1,) * dimensions

        def blocks(inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int]) -> nn.Sequential:
            first = Block(dimensions, inputs, outputs, kernel, stride, style)
            others = (Block(dimensions, outputs, outputs, kernel, ones, style) for _ in range(convs - 1))
            return nn.Sequential(first, *others)

        features = [spec.features(stage) for stage in range(depth + 1)]
        strides = [ones, *spec.pool_kernels]
        inputs = [spec.input_channels, *features]
        self.encoder = nn.ModuleList(
            blocks(inputs[stage], features[stage], spec.conv_kernels[stage], strides[stage])
            for stage in range(depth + 1)
        )
        upwards, v2 = range(depth - 1, -1, -1), style.layout == "v2"
        kernels = spec.conv_kernels if v2 else spec.conv_kernels[1:]
        self.upsampling = nn.ModuleList(
            _TRANSPOSED[dimensions](features[s + 1], features[s], strides[s + 1], strides[s + 1], bias=v2)
            for s in upwards
        )
        self.decoder = nn.ModuleList(blocks(2 * features[s], features[s], kernels[s], ones) for s in upwards)
        self.heads = nn.ModuleList(
            _CONVOLUTION[dimensions](features[s], spec.output_channels, 1, bias=v2 or style.head_bias) for s in upwards
        )

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
