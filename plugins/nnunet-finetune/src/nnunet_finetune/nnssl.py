"""Encoders that nnssl pretrained without labels: which tensors of a checkpoint they are.

Such a checkpoint holds `network_weights` under the names of v2's networks, and a plan,
`nnssl_adaptation_plan`, that says how the names of encoder and stem begin. What else it holds, a
decoder that paints images or a head that compares them, is no use for segmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nnunet_builtin.networks.state_names import from_v2, without_wrappers
from nnunet_builtin.untrusted.torch_files import read_checkpoint
from nnunet_core.errors import TrainingError, UsageError

_WEIGHTS, _PLAN = "network_weights", "nnssl_adaptation_plan"
#: {key of the plan: how the names begin in v2's networks}.
_PARTS = {"key_to_stem": "encoder.stem", "key_to_encoder": "encoder.stages"}


def read_encoder(path: Path) -> dict[str, torch.Tensor] | None:
    """Return the encoder of a checkpoint of nnssl under the names of our networks; None of any
    other file. Nothing in the file is run.

    Raises:
        StorageError: It is damaged, or holds more than tensors and plain values.
        TrainingError: Its encoder is not that of a U-Net, or its values are not finite.
    """
    if path.suffix != ".pth":
        return None
    plan = _entry(path, _PLAN)
    if not isinstance(plan, Mapping):
        return None
    weights = _entry(path, _WEIGHTS)
    prefixes = {key: plan.get(key) for key in _PARTS}
    if not _are_tensors(weights) or not all(isinstance(p, str) for p in prefixes.values()):
        raise TrainingError(
            f"{path} holds no encoder: {_WEIGHTS} must be tensors, and {_PLAN} must say where the "
            f"encoder is ({', '.join(_PARTS)}). Ask who made it for a checkpoint of nnssl."
        )
    found = {}
    for name, tensor in without_wrappers(weights).items():
        for key, ours in _PARTS.items():
            if name.startswith(f"{prefixes[key]}."):
                found[ours + name.removeprefix(str(prefixes[key]))] = tensor
    return _renamed(found, plan, path)


def _entry(path: Path, key: str) -> Any:
    """Return one entry of a checkpoint, None without it; tensors of others are not read."""
    content = read_checkpoint(path, keys=(key,))
    return content.get(key) if isinstance(content, Mapping) else None


def _renamed(
    found: Mapping[str, torch.Tensor], plan: Mapping[str, Any], path: Path
) -> dict[str, torch.Tensor]:
    architecture = plan.get("architecture_plans")
    name = architecture.get("arch_class_name") if isinstance(architecture, Mapping) else None
    try:
        renamed = from_v2(found)
    except UsageError as error:
        raise TrainingError(f"{path}: {error} This is an encoder of {str(name)[:60]}.") from error
    if not renamed:
        raise TrainingError(
            f"{path} holds no tensor of the encoder that its {_PLAN} names, of {str(name)[:60]}. "
            "Encoders of U-Nets (ResEncL) can be taken over."
        )
    wrong = [name for name, tensor in renamed.items() if not bool(tensor.isfinite().all())]
    if wrong:
        raise TrainingError(
            f"{path} holds values that are not finite, in {len(wrong)} of {len(renamed)} tensors, "
            f"such as {wrong[0]}. Use an intact copy."
        )
    return renamed


def _are_tensors(weights: object) -> bool:
    return isinstance(weights, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in weights.items()
    )
