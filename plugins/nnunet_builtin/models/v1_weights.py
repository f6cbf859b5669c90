"""Checkpoints of nnU-Net v1, and the network that their keys and shapes describe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from nnunet_builtin.models.foreign import State
from nnunet_builtin.networks.residual_names import from_v1_residual, is_residual_v1
from nnunet_builtin.networks.state_names import from_v1
from nnunet_builtin.untrusted.torch_files import read_checkpoint
from nnunet_core.data.metadata import first_problem
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import StorageError, UsageError

#: What weights cannot show of the networks of v1's own trainers.
UNSEEN: dict[str, dict[str, Any]] = {
    "nnUNetTrainerV2_ReLU": {"negative_slope": 0.0},
    "nnUNetTrainerV2_ReLU_biasInSegOutput": {"negative_slope": 0.0},
    "nnUNetTrainerV2_ReLU_convReLUIN": {"negative_slope": 0.0, "norm_last": True},
    "nnUNetTrainerV2_lReLU_convlReLUIN": {"norm_last": True},
    "nnUNetTrainerV2_lReLU_convReLUIN": {"norm_last": True},
    "nnUNetTrainerV2_LReLU_slope_2en1": {"negative_slope": 0.2},
    "nnUNetTrainerV2_GeLU": {"activation": "gelu"},
    "nnUNetTrainerV2_Mish": {"activation": "mish"},
    "nnUNetTrainerV2_GN": {"norm": "group"},
}


@dataclass(frozen=True)
class FoundNetwork:
    """What weights say of their network.

    Attributes:
        component: `builtin/plain_unet` or `builtin/residual_unet`.
        settings: Of the component.
        spec: Sizes.
    """

    component: str
    settings: dict[str, Any]
    spec: NetworkSpec


def read_state(path: Path) -> State:
    """Return the weights of a checkpoint under the names of our networks.

    Raises:
        StorageError: The file is damaged or asks for more than tensors, or holds another network.
    """
    content = read_checkpoint(path, keys=("state_dict",))
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise StorageError(f"{path} holds no weights (state_dict). Is it a checkpoint of v1?")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise StorageError(f"{path}: state_dict holds other things than tensors.")
    try:
        return from_v1_residual(state) if is_residual_v1(state) else from_v1(state)
    except UsageError as error:
        raise StorageError(f"{path}: {error}") from error


def found_network(state: State, trainer: str, source: Path) -> FoundNetwork:
    """Return the network that weights are of; their keys and shapes decide.

    Args:
        state: Weights under our names.
        trainer: Name of v1's trainer, for what weights cannot show.
        source: File, for messages.

    Raises:
        StorageError: They are of no U-Net, or of an impossible one.
    """
    residual = any(".second." in name for name in state)
    try:
        spec = NetworkSpec.model_validate(_sizes(state, residual))
    except (KeyError, IndexError, TypeError) as error:
        raise StorageError(f"{source} holds no U-Net of nnU-Net v1: {error} is missing.") from error
    except ValidationError as error:
        raise StorageError(
            f"{source} holds no U-Net of nnU-Net v1: {first_problem(error)}."
        ) from error
    settings: dict[str, Any] = {"norm": _norm(state), **UNSEEN.get(trainer, {})}
    if not residual:
        settings["head_bias"] = "heads.0.bias" in state
        return FoundNetwork("builtin/plain_unet", settings, spec)
    resolutions = range(len(spec.conv_kernels))
    settings["blocks"] = [
        _count(state, rf"encoder\.{s}\.(\d+)\.second\.weight") for s in resolutions
    ]
    settings["conv_bias"] = "encoder.0.0.conv.bias" in state
    return FoundNetwork("builtin/residual_unet", settings, spec)


def _sizes(state: State, residual: bool) -> dict[str, Any]:
    """Return the fields of a `NetworkSpec`, read off the first convolution of each resolution, and
    off what goes up.
    """
    depth = _count(state, r"upsampling\.(\d+)\.weight")
    layer = "first.conv" if residual else "conv"
    places = [f"encoder.{stage}.0.{layer}" for stage in range(depth + 1)]
    if residual:
        places[0] = "encoder.0.1.first.conv"  # behind the stem
    stages = [state[f"{place}.weight"] for place in places]
    ups = [state[f"upsampling.{up}.weight"] for up in reversed(range(depth))]
    stem = state["encoder.0.0.conv.weight"]
    return {
        "dimensions": stem.ndim - 2,
        "input_channels": stem.shape[1],
        "output_channels": len(state[f"heads.{depth - 1}.weight"]),
        "pool_kernels": [tuple(up.shape[2:]) for up in ups],
        "conv_kernels": [tuple(stage.shape[2:]) for stage in stages],
        "base_features": len(stem),
        "max_features": max(len(stage) for stage in stages),
        "convs_per_stage": 2 if residual else _count(state, r"encoder\.0\.(\d+)\..*"),
    }


def _norm(state: State) -> str:
    if any(name.endswith(".running_mean") for name in state):
        return "batch"
    return "instance" if any(".norm." in name for name in state) else "none"


def _count(state: State, pattern: str) -> int:
    matches = (re.fullmatch(pattern, name) for name in state)
    return len({match[1] for match in matches if match})
