"""The networks of a trained model, as functions from tiles to probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from nnunet_builtin.computing.devices import ResolvedRuntime, autocast, memory_format
from nnunet_builtin.computing.heads import heads_of, set_deep_supervision
from nnunet_builtin.networks.placing import placed
from nnunet_builtin.networks.weights import load_weights
from nnunet_core.contracts.predictor import TrainedModel, Values
from nnunet_core.store.models import WEIGHTS

#: Tiles float32 (B, C, *patch) on the device -> probabilities or logits float32 (B, K, *patch).
Forward = Callable[[torch.Tensor], torch.Tensor]
_VALUES_AT_ONCE = 1 << 24


def load_networks(
    model: TrainedModel, runtime: ResolvedRuntime, values: Values = "probabilities"
) -> list[Forward]:
    """Load the weights of every fold to the device; return a function per fold, see `logits_of` or
    `probabilities_of`.
    """
    regions = bool(model.labels.regions)
    networks = []
    for fold in model.folds:
        network = model.network.build(model.configuration.network)
        load_weights(network, fold / WEIGHTS)
        set_deep_supervision(network, False)
        network = placed(network, runtime, model.configuration.dimensions).eval()
        networks.append(
            logits_of(network, runtime)
            if values == "logits"
            else probabilities_of(network, runtime, regions)
        )
    return networks


def logits_of(network: nn.Module, runtime: ResolvedRuntime) -> Forward:
    """Return a function of tiles float32 (B, C, *patch) on the device to logits float32 (B, K,
    *patch) of the full resolution, computed in the precision of the runtime without gradients.
    """

    @torch.inference_mode()
    def forward(tiles: torch.Tensor) -> torch.Tensor:
        tiles = tiles.contiguous(memory_format=memory_format(runtime, tiles.ndim - 2))
        with autocast(runtime):
            return heads_of(network(tiles))[0].float()

    return forward


def probabilities_of(
    network: nn.Module, runtime: ResolvedRuntime, regions: bool = False
) -> Forward:
    """Return a function of tiles float32 (B, C, *patch) on the device to probabilities float32 (B,
    K, *patch).

    It computes in the precision of the runtime and keeps no gradients. Where a logit is not finite,
    the probabilities are NaN.

    Args:
        network: In eval mode, on the device, returning logits, the full resolution first.
        runtime: Device and precision.
        regions: Sigmoid per output instead of softmax.
    """
    logits_at = logits_of(network, runtime)

    @torch.inference_mode()
    def forward(tiles: torch.Tensor) -> torch.Tensor:
        logits = logits_at(tiles)
        if not logits.sum().isfinite():
            # adds 0, but NaN where a logit is infinite, which softmax and sigmoid could hide
            logits = logits + 0 * logits
        return _by_parts(torch.sigmoid if regions else _softmax, logits)

    return forward


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(1)


def _by_parts(
    function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor
) -> torch.Tensor:
    """Apply a function of single voxels to (B, K, *spatial): of many classes it would make copies
    in another order, each of which takes as much memory as the values.
    """
    count = min(-(-values.numel() // _VALUES_AT_ONCE), values.shape[2])
    if values.device.type != "cpu" or count <= 1:
        return function(values)
    result = torch.empty(values.shape)
    parts = zip(values.tensor_split(count, 2), result.tensor_split(count, 2), strict=True)
    for part, place in parts:
        place.copy_(function(part))
    return result
