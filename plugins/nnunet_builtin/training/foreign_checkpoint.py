"""Read the weights in a checkpoint of nnU-Net v1 or v2; nothing that the file names is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nnunet_builtin.networks.state_names import State, from_v1, from_v2
from nnunet_builtin.untrusted.torch_files import read_checkpoint
from nnunet_core.errors import StorageError, TrainingError, UsageError

#: Key of the weights in a checkpoint, and how they are renamed.
_WEIGHTS = {"state_dict": from_v1, "network_weights": from_v2}


def read_foreign_weights(path: Path) -> State:
    """Return the tensors of a v1 (`.model`) or v2 (`.pth`) checkpoint under the names of
    `network.UNet`.

    Raises:
        TrainingError: The file is damaged, asks for functions that are not allowed, or holds no
            plain U-Net.
    """
    content = _content(path)
    found = [
        key for key in _WEIGHTS if isinstance(content, dict) and isinstance(content.get(key), dict)
    ]
    if not found:
        raise TrainingError(
            f"{path} holds no weights: expected one of {', '.join(_WEIGHTS)}. Is it a checkpoint "
            "of nnU-Net?"
        )
    weights = content[found[0]]
    if not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in weights.items()
    ):
        raise TrainingError(
            f"{path}: '{found[0]}' holds other things than tensors. The file is damaged."
        )
    try:
        return _WEIGHTS[found[0]](weights)
    except UsageError as error:
        raise TrainingError(f"{path}: {error}") from error


def _content(path: Path) -> Any:
    try:
        return read_checkpoint(path, keys=tuple(_WEIGHTS))
    except StorageError as error:
        raise TrainingError(str(error)) from error
