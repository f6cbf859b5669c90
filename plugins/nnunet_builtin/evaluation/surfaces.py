"""Distances between the surfaces of two masks, in mm, by the definitions of DeepMind's
`surface-distance` (Nikolov et al. 2021, doi:10.2196/26151).

Surface elements, their areas, percentiles and sums are the library's. The search for the nearest
element is ours: a tree over the elements, which is faster than a map of distances for surfaces that
lie together, and a map for what lies far apart.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy.spatial import cKDTree
from surface_distance import lookup_tables, metrics

#: Files store spacings in single precision: a tolerance of 0.3 mm includes one voxel of 0.30000001.
_ROUNDING = 1e-6
#: Steps within which a tree is asked for every element; and the most pairs of elements that are
#: farther apart and still left to it.
_NEAR, _FEW_PAIRS = 8, 20_000_000


@dataclass(frozen=True)
class SurfaceDistances:
    """How far the surfaces of two masks lie apart, element by element.

    Attributes:
        found: What `surface_distance.compute_surface_distances` returns: distances (mm) from each
            surface to the other, ascending, and the areas (mm2; in the plane lengths, mm) of their
            elements.
    """

    found: dict[str, np.ndarray]

    def surface_dice(self, tolerance: float) -> float:
        """Return the share of both surfaces that lies within `tolerance` (mm) of the other one."""
        within = tolerance * (1 + _ROUNDING)
        return float(metrics.compute_surface_dice_at_tolerance(self.found, within))

    def hausdorff95(self) -> float:
        """Return the larger one of the 95th percentiles of both directions, by area, in mm."""
        return float(metrics.compute_robust_hausdorff(self.found, 95))

    def average(self) -> float:
        """Return the average distance (mm) over both surfaces together, by area."""
        total = sum(
            float(self.found[f"distances_{way}"] @ self.found[f"surfel_areas_{side}"])
            for way, side in (("gt_to_pred", "gt"), ("pred_to_gt", "pred"))
        )
        areas = self.found["surfel_areas_gt"].sum() + self.found["surfel_areas_pred"].sum()
        return total / float(areas)


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> SurfaceDistances:
    """Measure how far the surfaces of two masks lie apart.

    Surfaces run through the corners of voxels, and close at the border of the arrays.

    Args:
        prediction: bool (Z, Y, X) or (Y, X); not empty.
        reference: Of the same shape; not empty.
        spacing: mm per axis, in the order of the axes.
    """
    steps, box = np.array(spacing, float), _box(prediction | reference)
    mine, my_areas = _elements(prediction[box], steps)
    true, true_areas = _elements(reference[box], steps)
    found = {}
    for names, distances, areas in (
        (("gt_to_pred", "gt"), _nearest(true, mine, steps), true_areas),
        (("pred_to_gt", "pred"), _nearest(mine, true, steps), my_areas),
    ):
        order = np.argsort(distances, kind="stable")
        found[f"distances_{names[0]}"] = distances[order]
        found[f"surfel_areas_{names[1]}"] = areas[order]
    return SurfaceDistances(found)


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return where a mask is; surfaces close at its border as they do at that of an array."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        box.append(slice(places[0], places[-1] + 1))
    return tuple(box)


def _elements(mask: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of voxels that the surface runs through, int (n, axes), and its area
    there.
    """
    kernel, areas = _tables(tuple(steps.tolist()))
    padded = np.pad(mask.astype(np.uint8), 1)
    codes = np.zeros([n - 1 for n in padded.shape], np.uint8)
    for offset in itertools.product((0, 1), repeat=mask.ndim):
        window = tuple(slice(o, o + n) for o, n in zip(offset, codes.shape, strict=True))
        codes += padded[window] * np.uint8(kernel[offset])
    border = (codes != 0) & (codes != kernel.sum())
    return np.argwhere(border), areas[codes[border]]


@functools.lru_cache(maxsize=8)
def _tables(steps: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of each voxel around a corner in the code of its surface, and the area of
    each code; both as the library makes them.
    """
    if len(steps) == 2:
        lengths = lookup_tables.create_table_neighbour_code_to_contour_length(steps)
        return lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL, lengths
    areas = lookup_tables.create_table_neighbour_code_to_surface_area(steps)
    return lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL, areas


def _nearest(points: np.ndarray, others: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return for each point the distance in mm to the nearest one of the others."""
    tree, distances = cKDTree(others * steps), np.empty(len(points))
    _, index = tree.query(points * steps, distance_upper_bound=_NEAR * steps.max())
    near = index < len(others)
    distances[near] = _between(points[near], others[index[near]], steps)
    far = points[~near]
    if len(far) * len(others) <= _FEW_PAIRS:
        _, index = tree.query(far * steps)
        distances[~near] = _between(far, others[index], steps)
    else:  # from the middle of a ball its whole surface is nearest: a tree looks at all of it
        distances[~near] = _looked_up(far, others, steps)
    return distances


def _between(points: np.ndarray, others: np.ndarray, steps: np.ndarray) -> np.ndarray:
    # of whole steps: differences of rounded places would miss a tolerance by their last digit
    return np.asarray(np.sqrt((((points - others) * steps) ** 2).sum(axis=1)))


def _looked_up(points: np.ndarray, others: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the same as `_nearest`, in single precision, of a map of distances."""
    start = np.minimum(points.min(axis=0), others.min(axis=0))
    stop = np.maximum(points.max(axis=0), others.max(axis=0)) + 1
    surface = np.zeros(stop - start, np.uint8)
    surface[tuple((others - start).T)] = 1
    image = sitk.GetImageFromArray(surface)
    image.SetSpacing(steps[::-1].tolist())
    measure = sitk.SignedMaurerDistanceMapImageFilter()
    measure.SetUseImageSpacing(True)
    measure.SetSquaredDistance(False)
    measure.SetNumberOfThreads(1)
    measured = measure.Execute(image)  # the view below does not keep it alive
    found = sitk.GetArrayViewFromImage(measured)[tuple((points - start).T)]
    return found.astype(float)
