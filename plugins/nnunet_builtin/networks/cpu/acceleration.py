"""The one place where a network gets what makes it faster on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nnunet_builtin.computing.devices import ResolvedRuntime, has_tile_products
from nnunet_builtin.networks.cpu import coarse, norm, single, winograd
from nnunet_builtin.networks.unet import Join

#: A class of layers, when it may be replaced, and a subclass that overrides `forward` alone.
_Replacement = tuple[type[nn.Module], Callable[[Any, ResolvedRuntime], bool], type[nn.Module]]


def accelerate(network: nn.Module, runtime: ResolvedRuntime) -> None:
    """Let a network compute faster on a CPU, in place; on other devices nothing happens.

    Layers are found by their type, in any network. Results are the same but for rounding; names,
    weights and hooks stay, and hooks on layers are called as before. Each layer decides from batch
    to batch whether the fast way applies.

    Args:
        network: To be computed in the runtime, features in channels-last order.
        runtime: Where, and in which precision.
    """
    if runtime.device.type != "cpu":
        return
    for layer in network.modules():
        for kind, applies, faster in _REPLACEMENTS:
            if type(layer) is kind and applies(layer, runtime):
                # another class, the same object: whoever holds it, its hooks and its weights are
                # not touched
                layer.__class__ = faster


def _has_enough_products(conv: nn.Conv2d | nn.Conv3d, runtime: ResolvedRuntime) -> bool:
    """Return whether fewer products pay for a convolution: in bfloat16, and not where products cost
    little.
    """
    return (
        runtime.dtype == torch.bfloat16 and not has_tile_products() and winograd.is_possible(conv)
    )


def _is_stateless(layer: nn.InstanceNorm2d | nn.InstanceNorm3d, _: ResolvedRuntime) -> bool:
    return not layer.track_running_stats


_REPLACEMENTS: tuple[_Replacement, ...] = (
    (nn.InstanceNorm2d, _is_stateless, norm.InstanceNorm2d),
    (nn.InstanceNorm3d, _is_stateless, norm.InstanceNorm3d),
    (nn.Conv2d, _has_enough_products, winograd.Conv2d),
    (nn.Conv3d, _has_enough_products, winograd.Conv3d),
    (nn.Conv3d, single.is_possible, single.Conv3d),
    (nn.ConvTranspose3d, single.is_possible, single.ConvTranspose3d),
    (Join, lambda *_: True, coarse.Join),
)
