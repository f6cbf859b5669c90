"""Images whose axes run otherwise: brought to the axes of another image, every voxel in its
place.
"""

from __future__ import annotations

import numpy as np

from nnunet_core.data.images import Geometry, Image

_PARALLEL = 1e-3  # cosines: axes that differ by less are the same axis


def turned_like(image: Image, like: Geometry) -> Image:
    """Return an image with its axes in the order and the direction of another geometry's.

    Only the order of the voxels in memory changes, never their place in the world. An image whose
    axes are not parallel to the other's is returned as it is.

    Args:
        image: Array (C, Z, Y, X).
        like: Of the image whose axes it shall have.
    """
    # entry (i, j): how far axis j of the image runs along axis i of the other; both (x, y, z)
    turn = _matrix(like).T @ _matrix(image.geometry)
    signs = np.rint(turn).astype(int)
    if not np.allclose(turn, signs, rtol=0, atol=_PARALLEL) or np.array_equal(signs, np.eye(3)):
        return image
    axes = np.abs(signs).argmax(axis=1)
    flipped = signs.sum(axis=1) < 0
    array = image.array.transpose(0, *(1 + 2 - axes[::-1]))
    array = np.flip(array, tuple(3 - axis for axis in range(3) if flipped[axis]))
    return Image(array, _turned(image.geometry, axes, flipped))


def _turned(geometry: Geometry, axes: np.ndarray, flipped: np.ndarray) -> Geometry:
    """Return a geometry with its axes (x, y, z) in another order; a flipped one begins at its other
    end.
    """
    columns, spacing = _matrix(geometry)[:, axes], np.array(geometry.spacing[::-1])[axes]
    shape = np.array(geometry.shape[::-1])[axes]
    ends = columns * (spacing * (shape - 1) * flipped)
    direction = columns * np.where(flipped, -1.0, 1.0)
    z, y, x = (int(size) for size in shape[::-1])
    sz, sy, sx = (float(size) for size in spacing[::-1])
    ox, oy, oz = (float(value) for value in geometry.origin + ends.sum(axis=1))
    return Geometry((z, y, x), (sz, sy, sx), (ox, oy, oz), tuple(direction.ravel().tolist()))


def _matrix(geometry: Geometry) -> np.ndarray:
    return np.reshape(geometry.direction, (3, 3))
