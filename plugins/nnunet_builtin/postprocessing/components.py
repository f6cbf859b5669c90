"""Connected components of labels, and removing some of them (spec: postprocessing and selection,
section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage


def keep_largest(
    segmentation: np.ndarray, values: Sequence[int], minimum_voxels: float | None = None
) -> np.ndarray:
    """Set to 0 the voxels of `values` outside their largest face-connected component.

    Components as large as the largest stay. With `minimum_voxels`, only components smaller than
    that are removed.

    Returns:
        See `without_components`.
    """

    def smaller(sizes: np.ndarray) -> np.ndarray:
        removed = sizes < sizes.max()
        return removed if minimum_voxels is None else removed & (sizes < minimum_voxels)

    return without_components(segmentation, values, smaller)


def without_components(
    segmentation: np.ndarray,
    values: Sequence[int],
    choose: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Set to 0 the voxels of some face-connected components of labels.

    Args:
        segmentation: Integers (Z, Y, X).
        values: The labels, one object together.
        choose: Function of the sizes of the components in voxels, (n,), to the mask of those to
            remove, (n,).

    Returns:
        A cleaned copy, or the map itself when there is nothing to remove.
    """
    box, components, sizes = components_of(segmentation, values)
    if not sizes.size:
        return segmentation
    removed = np.concatenate([[False], choose(sizes)])
    if not removed.any():
        return segmentation
    cleaned = segmentation.copy()
    cleaned[box][removed[components]] = 0
    return cleaned


def components_of(
    segmentation: np.ndarray, values: Sequence[int]
) -> tuple[tuple[slice, ...], np.ndarray, np.ndarray]:
    """Return the face-connected components of labels, taken as one object.

    Returns:
        The box around them, the numbers of the components in it, from 1 (0 is outside), and their
        sizes in voxels (n,).
    """
    mask = np.isin(segmentation, values)
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        nowhere = (slice(0, 0),) * segmentation.ndim
        return nowhere, np.zeros((0,) * segmentation.ndim, np.intp), np.zeros(0, np.intp)
    components, count = ndimage.label(mask[boxes[0]])
    return boxes[0], components, np.bincount(components.ravel(), minlength=count + 1)[1:]
