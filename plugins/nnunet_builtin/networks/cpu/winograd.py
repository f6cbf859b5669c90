"""Convolutions with kernels of 3 by a third fewer products, for training in bfloat16 on CPU.

Winograd's F(2, 3) along one axis (Lavin and Gray, 2016, section 4.1): two neighbouring slices of
the result take four products of slices with transformed kernels instead of six. The products are
convolutions over the other axes, which leaves the work to PyTorch. Those of volumes take slices as
samples: PyTorch is faster in two dimensions than with kernels of 1 along an axis. Terms and
products are rounded before they are summed, so errors are about 2.5 times those of one convolution.
Predictions are computed without it, and trainings in float32, which keep to the numbers of v1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nnunet_builtin.computing.devices import CHANNELS_LAST
from nnunet_builtin.networks.cpu import single
from nnunet_builtin.networks.cpu.layout import is_channels_last

#: Plain convolution, by spatial dimensions.
CONVOLVE: dict[int, Callable[..., torch.Tensor]] = {2: functional.conv2d, 3: single.convolve}
_KERNEL = 3
_FEWEST_SLICES = 6
_VOLUMES = 5  # axes of a batch of volumes
_VOXELS_PER_CHANNEL = 10  # on fewer, transforming the weights takes longer than what it saves
_FEWEST_PRODUCTS = (
    40_000_000  # of each tap of the kernel; fewer save less time than the many calls take
)


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, the fast way where it pays."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C, *spatial) to (B, C', *spatial)."""
        return convolve(self, features, self.weight)


class Conv3d(nn.Conv3d):
    """PyTorch's convolution, the fast way where it pays."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C, *spatial) to (B, C', *spatial)."""
        return convolve(self, features, self.weight)


def convolve(
    conv: nn.Conv2d | nn.Conv3d, features: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Return the convolution of features with a weight, the fast way where it pays.

    Args:
        conv: With kernels of 3 that keep the size (`is_possible`); those of this file are computed
            the fast way.
        features: (B, C, *spatial).
        weight: (C', C, 3, ...), in the place of its own.
    """
    if isinstance(conv, Conv2d | Conv3d) and is_worthwhile(weight, features):
        fast: torch.Tensor = _Winograd.apply(features, weight, conv.bias)
        return fast
    plain = CONVOLVE[len(conv.kernel_size)]
    return plain(features, weight, conv.bias, padding=conv.padding)


def is_possible(conv: nn.Conv2d | nn.Conv3d) -> bool:
    """Return whether a convolution can be computed the fast way: kernels of 3 that keep the
    size.
    """
    ones = (1,) * len(conv.kernel_size)
    return (
        conv.kernel_size == (_KERNEL,) * len(ones)
        and conv.stride == conv.padding == conv.dilation == ones
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def is_worthwhile(weight: torch.Tensor, features: torch.Tensor) -> bool:
    """Return whether the fast way is faster for a weight (C', C, 3, ...) and features (B, C,
    *spatial).
    """
    voxels, outputs = features.numel() // features.shape[1], len(weight)
    return bool(
        is_channels_last(features, weight.ndim - 2)
        and features.requires_grad
        and torch.is_grad_enabled()
        and features.dtype == torch.bfloat16 == _precision(weight)
        and features.shape[2] % 2 == 0
        and features.shape[2] >= _FEWEST_SLICES
        and voxels >= _VOXELS_PER_CHANNEL * max(features.shape[1], outputs)
        and voxels * features.shape[1] * outputs >= _FEWEST_PRODUCTS
    )


def _precision(weight: torch.Tensor) -> torch.dtype:
    """Return the precision that a convolution computes in here."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype


class _Winograd(torch.autograd.Function):
    """Convolution of (B, C, *spatial), an even number of slices along the first axis, with (C', C,
    3, ...) and padding of 1.
    """

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        kernels = _kernels(weight, features.dtype)
        ctx.save_for_backward(features, *kernels)
        ctx.parameters = (weight.dtype, weight.shape, bias is not None)
        biases = (bias, None, None, None)  # the sum is in both slices of the result
        products = (
            _volumes(
                functional.conv2d(_planes(term), kernel, added, padding=_padding(features)),
                features,
            )
            for term, kernel, added in zip(_terms(features), kernels, biases, strict=True)
        )
        result = _empty((len(features), len(weight), *features.shape[2:]), features)
        even, odd = _slices(result)
        by_sum, by_difference = next(products), next(products)
        torch.add(by_sum, by_difference, out=even)
        torch.sub(by_sum, by_difference, out=odd)
        even += next(products)
        odd += next(products)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        features, *kernels = ctx.saved_tensors
        dtype, shape, biased = ctx.parameters
        result = _empty(features.shape, features)
        even, odd = _slices(result)
        pairs = _gradients(gradient, features, kernels)
        (by_sum, sum_kernel), (by_difference, difference_kernel) = next(pairs), next(pairs)
        torch.sub(by_sum, by_difference, out=even)
        torch.add(by_sum, by_difference, out=odd)
        by_step, first_kernel = next(pairs)
        odd -= by_step
        odd[:, :, :-1] += by_step[:, :, 1:]
        by_step, last_kernel = next(pairs)
        even -= by_step
        even[:, :, 1:] += by_step[:, :, :-1]
        by_kernels = (
            part.to(dtype) for part in (sum_kernel, difference_kernel, first_kernel, last_kernel)
        )
        by_weight = _weight_gradient(*by_kernels).reshape(shape)
        # With dtype=..., the sum would first make a copy, which takes ten times as long; it is in
        # float32 anyway.
        by_bias = gradient.sum([0, *range(2, gradient.ndim)]).to(dtype) if biased else None
        return result, by_weight, by_bias


def _terms(features: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield, of each pair of slices, their sum, their difference, the step from the previous odd,
    and to the next even one.
    """
    even, odd = _slices(features)
    yield even + odd
    yield odd - even
    step = torch.empty_like(even)
    torch.neg(odd[:, :, :1], out=step[:, :, :1])
    torch.sub(odd[:, :, :-1], odd[:, :, 1:], out=step[:, :, 1:])
    yield step
    step = torch.empty_like(even)
    torch.neg(even[:, :, -1:], out=step[:, :, -1:])
    torch.sub(even[:, :, 1:], even[:, :, :-1], out=step[:, :, :-1])
    yield step


def _gradients(
    gradient: torch.Tensor, features: torch.Tensor, kernels: Sequence[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the gradients by each term and by its kernel."""
    even, odd = _slices(gradient)
    sides = (lambda: even + odd, lambda: even - odd, even.clone, odd.clone)
    ones, padding = [1, 1], _padding(features)
    for side, term, kernel in zip(sides, _terms(features), kernels, strict=True):
        planes = (_planes(side()), _planes(term))
        by_term, by_kernel, _ = torch.ops.aten.convolution_backward(
            *planes, kernel, None, ones, padding, ones, False, [0, 0], 1, [True, True, False]
        )
        yield _volumes(by_term, features), by_kernel


def _kernels(weight: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return the kernels of the terms, in their order, (C', C, 3, 3) each for volumes, else (C', C,
    1, 3).
    """
    first, middle, last = (
        part.squeeze(2) if weight.ndim == _VOLUMES else part for part in weight.split(1, dim=2)
    )
    ends = (first + last) / 2
    kernels = (ends + middle / 2, ends - middle / 2, first, last)
    return [kernel.to(dtype).contiguous(memory_format=torch.channels_last) for kernel in kernels]


def _weight_gradient(
    by_sum: torch.Tensor, by_difference: torch.Tensor, by_first: torch.Tensor, by_last: torch.Tensor
) -> torch.Tensor:
    """Return the gradient by the weights (C', C, 3, ...) from those by the kernels of the terms."""
    both = (by_sum + by_difference) / 2
    return torch.stack([by_first + both, (by_sum - by_difference) / 2, both + by_last], dim=2)


def _planes(slices: torch.Tensor) -> torch.Tensor:
    """Return slices (B, C, *spatial) as samples (B', C, *plane)."""
    return slices.transpose(1, 2).flatten(0, 1) if slices.ndim == _VOLUMES else slices


def _volumes(planes: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return samples (B', C, *plane) as slices of the batch that they came from."""
    return planes.unflatten(0, (len(like), -1)).transpose(1, 2) if like.ndim == _VOLUMES else planes


def _slices(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return views of the even and of the odd slices of the first axis."""
    return features[:, :, ::2], features[:, :, 1::2]


def _empty(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, memory_format=CHANNELS_LAST[len(shape) - 2])


def _padding(features: torch.Tensor) -> list[int]:
    return [1, 1] if features.ndim == _VOLUMES else [0, 1]
