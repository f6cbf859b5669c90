"""MONAI's networks with what a training here needs beyond them; their weights have MONAI's names
and shapes.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from monai.networks import nets
from torch import nn
from torch.overrides import TorchFunctionMode

_Network = TypeVar("_Network", bound=nn.Module)


class SegResNetHeads(nets.SegResNetDS):
    """SegResNetDS that can return the full resolution alone (contracts.DeepSupervision)."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.deep_supervision = self.dsdepth > 1

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map images (B, C, *patch) to logits (B, K, *patch); in training to a list of them, the
        full resolution first.
        """
        logits: Any = super().forward(x)
        alone = isinstance(logits, list) and not self.deep_supervision
        chosen: torch.Tensor | list[torch.Tensor] = logits[0] if alone else logits
        return chosen


class DynUNetHeads(nets.DynUNet):
    """DynUNet that returns the logits of coarser resolutions as they are; MONAI's brings them to
    the full one and stacks them.

    Its state has each tensor once; in that of MONAI's all lie under `skip_layers`, too.
    """

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        # a second way to the same blocks: an attribute like any other, no module of this network
        object.__setattr__(self, "skip_layers", self._modules.pop("skip_layers"))

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map images (B, C, *patch) to logits (B, K, *patch); in training to a list of them, the
        full resolution first.
        """
        logits: torch.Tensor = self.output_block(self.skip_layers(x))
        coarser = list(self.heads)
        # what stays in this list would be kept until the next batch, and could not be copied
        self.heads[:] = [torch.empty(0)] * len(coarser)
        return [logits, *coarser] if self.training and self.deep_supervision else logits


class OneVoxelNorm2d(nn.InstanceNorm2d):
    """`InstanceNorm2d` for any number of voxels."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - PyTorch's name
        """Normalise (B, C, Y, X)."""
        return _of_one_voxel(self, input) if input[0, 0].numel() == 1 else super().forward(input)


class OneVoxelNorm3d(nn.InstanceNorm3d):
    """`InstanceNorm3d` for any number of voxels."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - PyTorch's name
        """Normalise (B, C, Z, Y, X)."""
        return _of_one_voxel(self, input) if input[0, 0].numel() == 1 else super().forward(input)


def _of_one_voxel(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, voxel: torch.Tensor) -> torch.Tensor:
    """Return the norm of a single voxel: itself minus itself, and the bias. PyTorch refuses it, as
    nothing else is left of it; the residual way of a block hands it on.
    """
    nothing = voxel - voxel
    if not norm.affine:
        return nothing
    shape = (1, -1, *[1] * (voxel.ndim - 2))
    return nothing * norm.weight.view(shape) + norm.bias.view(shape)


def taking_single_voxels(network: _Network) -> _Network:
    """Return a network just built, whose instance norms take single voxels: the smallest patch that
    its divisor allows is one voxel at the coarsest resolution.
    """
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.InstanceNorm2d | nn.InstanceNorm3d):
                kind = OneVoxelNorm2d if isinstance(norm, nn.InstanceNorm2d) else OneVoxelNorm3d
                setattr(parent, name, kind(norm.num_features, norm.eps, affine=norm.affine))
    return network


class NumbersOnCpu(TorchFunctionMode):
    """Lets a network be built without memory (PyTorch's meta device) that reads values of
    `torch.linspace` meanwhile.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of PyTorch."""
        further = dict(kwargs or {})
        if func is torch.linspace:
            further["device"] = "cpu"
        return func(*args, **further)
