"""Connected components of labels, and removing some of them (spec: postprocessing and selection,
section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage


def keep_largest(
    segmentation: np.ndarray,
    values: Sequence[int],
    minimum_voxels: float | None = None,
    corners: bool = False,
) -> np.ndarray:
    """Set to 0 the voxels of `values` outside their largest face-connected component.

    Components as large as the largest stay. With `minimum_voxels`, only components smaller than
    that are removed. With `corners`, voxels that share an edge or a corner are connected, too.

    Returns:
        See `without_components`.
    """

    def smaller(sizes: np.ndarray) -> np.ndarray:
        removed = sizes < sizes.max()
        return removed if minimum_voxels is None else removed & (sizes < minimum_voxels)

    return without_components(segmentation, values, smaller, corners)


def without_components(
    segmentation: np.ndarray,
    values: Sequence[int],
    choose: Callable[[np.ndarray], np.ndarray],
    corners: bool = False,
) -> np.ndarray:
    """Set to 0 the voxels of some components of labels.

    Args:
        segmentation: Integers (Z, Y, X).
        values: The labels, one object together.
        choose: Function of the sizes of the components in voxels, (n,), to the mask of those to
            remove, (n,).
        corners: See `keep_largest`.

    Returns:
        A cleaned copy, or the map itself when there is nothing to remove.
    """
    box, components, sizes = components_of(segmentation, values, corners)
    if not sizes.size:
        return segmentation
    removed = np.concatenate([[False], choose(sizes)])
    if not removed.any():
        return segmentation
    cleaned = segmentation.copy()
    cleaned[box][removed[components]] = 0
    return cleaned


def components_of(
    segmentation: np.ndarray, values: Sequence[int], corners: bool = False
) -> tuple[tuple[slice, ...], np.ndarray, np.ndarray]:
    """Return the components of labels, taken as one object; see `keep_largest` for `corners`.

    Returns:
        The box around them, the numbers of the components in it, from 1 (0 is outside), and their
        sizes in voxels (n,).
    """
    mask = np.isin(segmentation, values)
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        nowhere = (slice(0, 0),) * segmentation.ndim
        return nowhere, np.zeros((0,) * segmentation.ndim, np.intp), np.zeros(0, np.intp)
    neighbours = np.ones((3,) * segmentation.ndim) if corners else None
    components, count = ndimage.label(mask[boxes[0]], neighbours)
    return boxes[0], components, np.bincount(components.ravel(), minlength=count + 1)[1:]
