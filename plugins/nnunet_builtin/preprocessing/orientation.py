"""Axes of images whose networks want them in one order and direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nnunet_core.data.images import Geometry

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
#: The axes (z, y, x) as they are.
KEPT = (0, 1, 2)


def axes_to_ras(geometry: Geometry) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Return how the axes of an image become those of the body: the first to the head, the second
    to the front, the third to the right of the patient, as near as its own axes come.

    Only the order of voxels changes. Axes that are oblique are taken for the nearest axis of the
    body, the one that is nearest of all first, as nibabel's `io_orientation` does.

    Returns:
        Axes (z, y, x) of the image in their new order, and those that are reversed, by the numbers
        that they have in the image.
    """
    cosines = _LPS_TO_RAS[:, None] * np.reshape(geometry.direction, (3, 3))
    left, _, right = np.linalg.svd(cosines)
    cosines = left @ right  # the nearest rotation, where a header rounds
    order, reversed_axes = [0, 0, 0], []
    for own in np.argsort(-(cosines**2).max(axis=0), kind="stable"):
        body = int(np.abs(cosines[:, own]).argmax())
        order[2 - body] = 2 - int(own)  # arrays count their axes from the other end
        if cosines[body, own] < 0:
            reversed_axes.append(2 - int(own))
        cosines[body] = 0  # every axis of the body is taken once
    first, second, third = order
    return (first, second, third), tuple(sorted(reversed_axes))
