"""Checkpoints of nnU-Net v2: weights under the names of ours, and what is said beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunet_builtin.models.v2_plans import V2Checkpoint, checked
from nnunet_builtin.networks.state_names import from_v2
from nnunet_builtin.untrusted.torch_files import read_checkpoint
from nnunet_core.errors import StorageError, UsageError

if TYPE_CHECKING:
    from nnunet_builtin.models.foreign import State

#: The last one is that of other programs.
_WEIGHTS = ("network_weights", "state_dict")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        path: The file.
        weights: Under the names of ours.
        said: Trainer, configuration and mirrored axes, where the file has them.
    """

    path: Path
    weights: State
    said: V2Checkpoint

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a checkpoint, or a file of weights alone; nothing in it is run.

        Raises:
            StorageError: It is damaged, asks for more than tensors and plain values, or holds no
                weights of a network of v2.
        """
        content = read_checkpoint(path)
        found = _weights(content)
        if found is None:
            raise StorageError(
                f"{path} holds no weights: expected '{_WEIGHTS[0]}'. Is it a checkpoint of nnU-Net "
                "v2?"
            )
        try:
            weights = from_v2(found)
        except UsageError as error:
            raise StorageError(f"{path}: {error}") from error
        said = content if isinstance(content.get("init_args", {}), dict) else {}
        return cls(path, weights, checked(V2Checkpoint, said, str(path)))


def read_weights(path: Path) -> State:
    """Return the weights of a checkpoint; see `Checkpoint.read`."""
    return Checkpoint.read(path).weights


def _weights(content: Any) -> dict[str, torch.Tensor] | None:
    if not isinstance(content, dict):
        return None
    for candidate in (*(content.get(key) for key in _WEIGHTS), content):
        if isinstance(candidate, dict) and candidate and all(map(_is_weight, candidate.items())):
            return candidate
    return None


def _is_weight(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)
