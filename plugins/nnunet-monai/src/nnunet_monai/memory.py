"""How much memory a network takes: what a forward pass keeps, counted without computing it, and a
formula that is fitted to a few counts.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunet_core.data.plans import NetworkSpec


class Measured(ABC):
    """A builder whose `memory` is measured: a sum of terms (voxels, tokens, ...), each with the
    bytes that counting found for one of it.

    A subclass is a frozen dataclass: what was found is kept for equal settings.
    """

    @abstractmethod
    def build(self, spec: NetworkSpec) -> Any:
        """Return the network (contracts.NetworkBuilder)."""

    @abstractmethod
    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return what patch sizes are multiples of (contracts.NetworkBuilder)."""

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the bytes that training on one patch keeps (contracts.NetworkBuilder): the tensors
        that wait for the gradients, in float32.

        Weights, their gradients and the optimiser's state are left out, as in
        `nnunet_builtin.networks.estimate`: the planner's budget has room for them.
        """
        sizes = tuple(int(size) for size in patch_size)
        per_term = _bytes_per_term(self, spec.model_dump_json())
        return float(np.array(self.terms(sizes), float) @ per_term)

    def terms(self, patch_size: Sequence[int]) -> list[float]:
        """Return the counts that memory is proportional to: of a network of convolutions one, and
        the voxels of the patch.
        """
        return [1.0, float(math.prod(patch_size))]

    def probes(self, spec: NetworkSpec) -> list[tuple[int, ...]]:
        """Return the patches that are counted; together they tell all terms apart."""
        divisor = self.divisor(spec)
        return [tuple(step * factor for step in divisor) for factor in (2, 4)]


@functools.lru_cache(maxsize=256)
def _bytes_per_term(builder: Measured, of: str) -> np.ndarray:
    """Return the bytes (terms,) that a network of this specification, as JSON, keeps per term."""
    spec = NetworkSpec.model_validate_json(of)
    probes = builder.probes(spec)
    counts = np.array([builder.terms(patch) for patch in probes], float)
    found = np.array([count(builder, spec, patch) for patch in probes], float)
    size = counts.max(axis=0)  # terms differ by many orders of magnitude
    per_size, *_ = np.linalg.lstsq(counts / size, found, rcond=None)
    return per_size / size


def count(builder: Measured, spec: NetworkSpec, patch_size: Sequence[int]) -> int:
    """Return the bytes that one forward pass on one patch keeps, float32; nothing of its size is
    allocated (PyTorch's meta device), and no random number is drawn.
    """
    import torch

    with torch.device("meta"):
        network = builder.build(spec.model_copy(update={"patch_size": tuple(patch_size)}))
        images = torch.empty(1, spec.input_channels, *patch_size)
    return kept_bytes(network.train(), images)


def kept_bytes(network: Any, images: Any) -> int:
    """Return the bytes of all tensors that PyTorch keeps for the gradients of a forward pass, and
    of the logits; each storage once, weights and buffers left out.

    Args:
        network: A module, on any device.
        images: (B, C, *patch) on the same device.
    """
    import torch

    own = {tensor.untyped_storage()._cdata for tensor in network.state_dict().values()}
    storages: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage  # alive, so that no other one gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        returned = network(images)
        for logits in returned if isinstance(returned, list | tuple) else [returned]:
            keep(logits)
    return sum(storage.nbytes() for storage in storages.values())
