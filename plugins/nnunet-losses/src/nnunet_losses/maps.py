"""The default preprocessor with arrays that losses need: skeletons and signed distances."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import ndimage
from skimage.morphology import skeletonize

from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_core.data.cases import Case, ExtraArray, PreparedCase
from nnunet_core.data.plans import Configuration

MapName = Literal["skeleton", "distance"]
Maps = Annotated[tuple[MapName, ...], Field(min_length=1)]
Spacing = tuple[float, ...]

_TUBE = 2  # voxels around a skeleton, along axes: the paper's diamond


class WithMaps(DefaultPreprocessor):
    """Prepares cases as the preprocessor `default` (`planes` for 2D networks), with extra arrays.

    With a 2D network each slice has maps of its own.

    Args:
        maps: `skeleton`: tubes around the skeleton, uint8 or int16: the label map within them, 0
            elsewhere (1, *prepared_shape), or for R regions a map of 0 and 1 for each (R,
            *prepared_shape). `distance`: from the boundary of each foreground class in the order of
            the values, or of each region, negative inside, float16 (K, *prepared_shape).
        skeleton_of: `foreground`: one skeleton of all classes together, as in the paper, or of each
            `class`. Regions always have their own.
        unit: Of distances: `mm`, or `voxel` of the prepared case.
    """

    def __init__(
        self,
        maps: Maps = ("skeleton",),
        skeleton_of: Literal["foreground", "class"] = "foreground",
        unit: Literal["mm", "voxel"] = "mm",
    ) -> None:
        super().__init__()
        self.maps = maps
        self.skeleton_of = skeleton_of
        self.unit = unit

    def prepare(
        self, case: Case, configuration: Configuration, foreground: Sequence[int] = ()
    ) -> PreparedCase:
        """Return the prepared case with its maps; a case without a label has none
        (contracts.Preprocessor).
        """
        planes = configuration.dimensions == 2
        base = copy.copy(self)
        base.resample = "in_plane" if planes else "all"
        prepared = super(WithMaps, base).prepare(case, configuration, foreground)
        if case.label is None:
            return prepared
        regions = () if case.labels is None else case.labels.regions
        made = {
            "skeleton": lambda: self._skeleton(prepared.label, regions, foreground, planes),
            "distance": lambda: self._distance(prepared, regions, foreground, planes),
        }
        return replace(prepared, arrays={name: made[name]() for name in self.maps})

    def _skeleton(
        self,
        label: np.ndarray,
        regions: Sequence[Sequence[int]],
        foreground: Sequence[int],
        planes: bool,
    ) -> ExtraArray:
        if regions:
            tubes = [_in_slices(tube, np.isin(label, region), planes) for region in regions]
            return ExtraArray(np.stack(tubes).astype(np.uint8), like="label")
        together = [foreground] if self.skeleton_of == "foreground" else [[v] for v in foreground]
        found = np.zeros_like(label)
        for values in together:
            mask = np.isin(label, values)
            found = np.where(_in_slices(tube, mask, planes), label, found)
        small = found.max(initial=0) <= np.iinfo(np.uint8).max
        return ExtraArray(found[None].astype(np.uint8 if small else np.int16), like="label")

    def _distance(
        self,
        prepared: PreparedCase,
        regions: Sequence[Sequence[int]],
        foreground: Sequence[int],
        planes: bool,
    ) -> ExtraArray:
        spacing = prepared.geometry.prepared_spacing if self.unit == "mm" else (1.0, 1.0, 1.0)

        def measured(mask: np.ndarray) -> np.ndarray:
            return signed_distance(mask, spacing[3 - mask.ndim :])

        masks = regions or [[value] for value in sorted(foreground)]
        found = [_in_slices(measured, np.isin(prepared.label, values), planes) for values in masks]
        return ExtraArray(np.stack(found).astype(np.float16), like="image")


def tube(mask: np.ndarray) -> np.ndarray:
    """Return the skeleton of a mask, two voxels thicker on each side, within the mask.

    Kirchhoff et al. 2024 (arXiv 2404.03010), algorithm 1: skeletonize, dilate with a diamond of
    radius 2, multiply by the truth.

    Args:
        mask: bool, two or three axes.
    """
    if not mask.any():
        return mask
    found: np.ndarray = ndimage.binary_dilation(_skeleton(mask), iterations=_TUBE) & mask
    return found


def _skeleton(mask: np.ndarray) -> np.ndarray:
    """Return the skeleton of a mask; every connected part has one."""
    found = skeletonize(mask) > 0
    parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    lost = mask & ~np.isin(parts, parts[found])
    if lost.any():
        # thinning in 3D leaves nothing of a box with an even number of voxels: take its middle
        depth = ndimage.distance_transform_edt(mask)
        deepest = ndimage.maximum(depth, parts, np.arange(count + 1))
        found |= lost & (depth == deepest[parts])
    return found


def signed_distance(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Return how far each voxel is from the boundary of a mask, negative inside, float64.

    Kervadec et al. 2019 (arXiv 1812.07032), equation 4: phi = -D inside and D outside, D the
    distance to the boundary: here to the nearest voxel of the mask that touches the outside, which
    is 0 itself.

    Args:
        mask: bool, two or three axes.
        spacing: Of its axes, mm; ones for voxels.

    Returns:
        Shape of the mask; zeros where there is no boundary.
    """
    # the border of the volume is no boundary: what is cut off there goes on
    edge = mask & ~ndimage.binary_erosion(mask, border_value=1)
    if not edge.any():
        return np.zeros(mask.shape)
    distance: np.ndarray = ndimage.distance_transform_edt(~edge, spacing)
    return np.where(mask, -distance, distance)


def _in_slices(
    function: Callable[[np.ndarray], np.ndarray], mask: np.ndarray, planes: bool
) -> np.ndarray:
    """Apply a function to a mask (Z, Y, X), or to each of its slices."""
    return np.stack([function(plane) for plane in mask]) if planes else function(mask)
