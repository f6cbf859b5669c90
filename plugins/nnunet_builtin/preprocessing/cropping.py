"""Crop a case to its non-zero region (spec: fingerprint, section 2)."""

from __future__ import annotations

import numpy as np

from nnunet_core.data.cases import Case
from nnunet_core.errors import ImageError

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def nonzero_mask(images: np.ndarray) -> np.ndarray:
    """Return bool (Z, Y, X): any channel of (C, Z, Y, X) is non-zero, holes filled."""
    mask = (images != 0).any(axis=0)
    if all(mask.take(end, axis).all() for axis in range(3) for end in (0, -1)):
        return np.ones_like(mask)  # nothing is outside: every zero is a hole
    from scipy import ndimage  # here, since a rerun that has nothing to do needs it not

    return ndimage.binary_fill_holes(mask)


def crop_box(mask: np.ndarray) -> Box:
    """Return ((start, stop), ...) per axis of the smallest box around the mask; the mask must not
    be empty.
    """
    ranges = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ranges.append((int(hits[0]), int(hits[-1]) + 1))
    return ranges[0], ranges[1], ranges[2]


def crop(case: Case) -> tuple[np.ndarray, np.ndarray, Box]:
    """Return the cropped images, the cropped label with -1 outside the non-zero region, and the
    box.

    Without a label file the label is 0 inside and -1 outside. Labels above 0 stay wherever they are
    in the box.

    Raises:
        ImageError: Every voxel is zero.
    """
    mask = nonzero_mask(case.images)
    if not mask.any():
        raise ImageError(
            f"Every voxel of case {case.name} is zero; there is nothing to crop to. Remove the "
            "case."
        )
    box = crop_box(mask)
    inside = tuple(slice(start, stop) for start, stop in box)
    mask = mask[inside]
    label = (
        np.zeros(mask.shape, np.int16)
        if case.label is None
        else case.label[inside].astype(np.int16)
    )
    label[(label == 0) & ~mask] = -1
    return case.images[(slice(None), *inside)], label, box
