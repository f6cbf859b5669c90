"""Weights files: read with every doubt; nothing else reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode

from nnunet_core.contracts.network import NetworkBuilder
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import StorageError, listed
from nnunet_core.store.models import weights_advice


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file, on the CPU.

    Raises:
        StorageError: It is missing, truncated or otherwise damaged, may not be read, or holds
            values that are not finite.
    """
    try:
        weights = load_file(path)
    except Exception as error:
        raise StorageError(
            f"The weights {path} cannot be read: {error}. {weights_advice(path.parent)}"
        ) from error
    check_finite(weights, path, weights_advice(path.parent))
    return weights


def check_finite(weights: Mapping[str, torch.Tensor], source: object, advice: str) -> None:
    """Raise StorageError where weights hold NaN or infinity: a network of such predicts nothing.

    Args:
        weights: Tensors by name.
        source: Where they come from, for the message.
        advice: What to do, sentences for people.
    """
    wrong = [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if wrong:
        raise StorageError(
            f"The weights of {source} hold values that are not finite (NaN or infinity), in "
            f"{len(wrong)} of {len(weights)} tensors: {listed(wrong)}. {advice}"
        )


class _Uninitialised(TorchFunctionMode):
    """Leaves random numbers out: to draw none, for tensors without memory, PyTorch imports a
    thousand modules.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of PyTorch, unless it draws."""
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))


def shapes_of(builder: NetworkBuilder, spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the weights of a network; nothing of its size is allocated."""
    with torch.device("meta"), _Uninitialised():
        network = builder.build(spec)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Read a weights file into a network, every tensor of both.

    Raises:
        StorageError: The file is damaged, see `read_weights`, or of another network.
    """
    try:
        network.load_state_dict(read_weights(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise StorageError(
            f"The weights {path} are of another network than model.json describes: {reason}. Use "
            "the weights and the model.json of one training."
        ) from error
