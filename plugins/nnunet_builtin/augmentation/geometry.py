"""Where the voxels of an augmented patch lie in the generator patch: matrices and points for NumPy and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, ndimage

if TYPE_CHECKING:
    from nnunet_builtin.augmentation.decisions import Draw, Elastic
    from nnunet_core.data.plans import Configuration


def spatial_axes(configuration: Configuration) -> int:
    """Return how many of the last axes are rotated and scaled; with dummy 2D slices are channels of a plane."""
    return 2 if configuration.dummy_2d_augmentation else configuration.dimensions


def rotation(angles: Sequence[float]) -> np.ndarray:
    """Return the matrix that row vectors are multiplied with: (3, 3) for three angles, (2, 2) for one.

    Args:
        angles: Radians; about axis 0, then 1, then 2 of a volume, or in a plane.
    """
    if len(angles) == 1:
        (cosine,), (sine,) = np.cos(angles), np.sin(angles)
        return np.array([[cosine, -sine], [sine, cosine]])
    (a, b, c), (x, y, z) = np.cos(angles), np.sin(angles)
    about_0 = np.array([[1, 0, 0], [0, a, -x], [0, x, a]])
    about_1 = np.array([[b, 0, y], [0, 1, 0], [-y, 0, b]])
    about_2 = np.array([[c, -z, 0], [z, c, 0], [0, 0, 1]])
    return about_0 @ about_1 @ about_2


def centre_window(size: Sequence[int], patch: Sequence[int]) -> tuple[slice, ...]:
    """Return the slices that cut a patch from the centre of a generator patch."""
    starts = [(old - new) // 2 for old, new in zip(size, patch, strict=True)]
    return tuple(slice(start, start + new) for start, new in zip(starts, patch, strict=True))


def placement(
    draw: Draw, size: Sequence[int], patch: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return `matrix` (axes, axes) and `offset` (axes): voxel k of the patch lies at `matrix @ k + offset`.

    Args:
        draw: Angles and scale; elastic deformation is not part of it.
        size: Generator patch, voxels of the spatial axes.
        patch: Patch to fill.
    """
    axes = len(patch)
    factors = np.broadcast_to(1.0 if draw.scale is None else draw.scale, axes)
    matrix = np.diag(factors) if draw.angles is None else factors[:, None] * rotation(draw.angles).T
    return matrix, np.array(size) / 2 - 0.5 - matrix @ ((np.array(patch) - 1) / 2)


def points(matrix: np.ndarray, offset: np.ndarray, patch: Sequence[int]) -> list[np.ndarray]:
    """Return, per axis of the generator patch, where the voxels of the patch lie; float64 (*patch)."""
    grid = np.ogrid[tuple(slice(0, new) for new in patch)]
    return [
        sum((m * k for m, k in zip(row, grid, strict=True)), o)
        for row, o in zip(matrix, offset, strict=True)
    ]


def scaling_matrix(old: int, new: int, factor: float, offset: float) -> np.ndarray:
    """Return the float64 (old, new) cubic weights of samples at `factor * k + offset`; 0 outside, as SciPy has them."""
    return ndimage.affine_transform(
        np.eye(old), np.diag([1, factor]), (0, offset), output_shape=(old, new)
    )


def smoothing_matrices(elastic: Elastic) -> list[np.ndarray]:
    """Return the float32 matrix per axis that smooths by a Gaussian, periodic unless the displacement has a factor."""
    sizes = zip(elastic.noise.shape[1:], elastic.deviations, strict=True)
    if elastic.factor is not None:
        return [
            ndimage.gaussian_filter1d(np.eye(n, dtype=np.float32), s, mode="constant")
            for n, s in sizes
        ]
    matrices = []
    for voxels, deviation in sizes:
        weights = np.exp(-2 * (np.pi * np.fft.fftfreq(voxels) * deviation) ** 2)
        matrices.append(linalg.circulant(np.fft.ifft(weights).real).astype(np.float32))
    return matrices
