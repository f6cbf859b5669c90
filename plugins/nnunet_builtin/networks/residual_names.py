"""Names of the tensors of nnU-Net v1's U-Net with a residual encoder (`FabiansUNet`), and here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from nnunet_builtin.networks.state_names import State, without_wrappers
from nnunet_core.errors import UsageError

_ALIAS = re.compile(r"\.all\.\d+\.")  # blocks of its decoder list their layers twice
_BLOCK = {
    "conv1": "first.conv",
    "norm1": "first.norm",
    "conv2": "second",
    "norm2": "norm",
    "downsample_skip.0": "skip",
    "downsample_skip.1": "skip_norm",
}
_IN_BLOCK = re.compile(rf"encoder\.stages\.(\d+)\.convs\.(\d+)\.({'|'.join(_BLOCK)})\.(\w+)")
_OTHERS = (
    (r"encoder\.initial_(conv|norm)\.(\w+)", r"encoder.0.0.\1.\2"),
    (r"decoder\.tus\.(\d+)\.weight", r"upsampling.\1.weight"),
    (r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(\w+)", r"decoder.\1.\2.\3.\4"),
    (r"decoder\.deep_supervision_outputs\.(\d+)\.(weight|bias)", r"heads.\1.\2"),
)
_LAST_HEAD = re.compile(r"decoder\.segmentation_output\.(weight|bias)")


def is_residual_v1(state: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a v1 state dict is one of `FabiansUNet`."""
    return any(_IN_BLOCK.fullmatch(name) for name in without_wrappers(state))


def from_v1_residual(state: Mapping[str, torch.Tensor]) -> State:
    """Return the tensors of a v1 state dict (`FabiansUNet`) under the names of
    `residual.ResidualEncoderUNet`. Biases of heads, which v1 does not have, are 0.

    Raises:
        UsageError: A name that this network does not have.
    """
    plain = {n: t for n, t in without_wrappers(state).items() if not _ALIAS.search(n)}
    depth = sum(bool(re.fullmatch(r"decoder\.tus\.\d+\.weight", name)) for name in plain)
    renamed = {_renamed(name, depth): tensor for name, tensor in plain.items()}
    for name, tensor in list(renamed.items()):
        if match := re.fullmatch(r"(heads\.\d+)\.weight", name):
            renamed.setdefault(f"{match[1]}.bias", tensor.new_zeros(len(tensor)))
    return renamed


def _renamed(name: str, depth: int) -> str:
    if match := _IN_BLOCK.fullmatch(name):
        stage, block, layer, kind = match.groups()
        # here, the first convolution is the first block
        return f"encoder.{stage}.{int(block) + (stage == '0')}.{_BLOCK[layer]}.{kind}"
    if match := _LAST_HEAD.fullmatch(name):
        return f"heads.{depth - 1}.{match[1]}"
    for pattern, replacement in _OTHERS:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise UsageError(
        f"'{name}' is no tensor of nnU-Net v1's U-Net with a residual encoder. Networks with other "
        "layers cannot be taken over."
    )
