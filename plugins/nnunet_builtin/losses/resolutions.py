"""Extra arrays of a batch at the resolutions of a network's heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional


def at_resolution(array: torch.Tensor, like: str, shape: Sequence[int]) -> torch.Tensor:
    """Return an array (B, K, *spatial) on a coarser grid of the same extent.

    Args:
        array: float32 like images, integers like labels.
        like: `image` is averaged over what a coarse voxel covers; `label` takes the voxel in its
            middle, f * i + f // 2 for a factor f, as labels do.
        shape: Of the coarse grid, voxels; the array's own shape returns the array itself.
    """
    if tuple(array.shape[2:]) == tuple(shape):
        return array
    if like == "image":
        return functional.interpolate(array, size=list(shape), mode="area")
    for axis, size in enumerate(shape, start=2):
        places = (torch.arange(size, device=array.device) + 0.5) * array.shape[axis] / size
        array = array.index_select(axis, places.long())
    return array


def at_resolutions(
    arrays: Mapping[str, torch.Tensor], like: Mapping[str, str], shapes: Sequence[Sequence[int]]
) -> list[dict[str, torch.Tensor]]:
    """Return the arrays at the resolution of every head."""
    return [
        {name: at_resolution(array, like[name], shape) for name, array in arrays.items()}
        for shape in shapes
    ]
