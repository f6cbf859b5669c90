"""Surface Dice, HD95 and ASSD of one label: CPU times of ours against DeepMind's library alone.

python tests/benchmarks/surface_metrics.py

Pairs of drawn organs: an ellipsoid with bumps, and the same one a voxel or many voxels aside. Both
sides in turns; the numbers that they find are compared, too.
"""

import time

import numpy as np
from scipy import ndimage
from surface_distance import metrics

from nnunet_builtin.evaluation.surfaces import SurfaceDistances, surface_distances

REPEATS = 3
#: (name, shape, spacing in mm, voxels that the prediction lies aside)
PAIRS = (
    ("organ, near", (80, 160, 160), (3.0, 0.8, 0.8), 1),
    ("organ, far", (80, 160, 160), (3.0, 0.8, 0.8), 40),
    ("large organ, near", (160, 320, 320), (1.5, 0.8, 0.8), 2),
    ("small lesion in a large image", (160, 320, 320), (1.5, 0.8, 0.8), 3),
)


def organ(shape, share):
    """Return an ellipsoid with bumps, bool."""
    rng = np.random.default_rng(0)
    axes = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
    radius = sum((axis / share) ** 2 for axis in axes)
    coarse = rng.normal(0, 0.15, [max(2, size // 16) for size in shape])
    return radius + ndimage.zoom(coarse, np.array(shape) / coarse.shape, order=1) < 1


def library(prediction, reference, spacing):
    """Return what the library finds without our search."""
    return SurfaceDistances(metrics.compute_surface_distances(reference, prediction, spacing))


def numbers(found):
    """Return surface Dice at 1 mm, HD95 and ASSD."""
    return found.surface_dice(1.0), found.hausdorff95(), found.average()


def main():
    """Print a row for each pair."""
    for name, shape, spacing, aside in PAIRS:
        reference = organ(shape, 0.05 if "lesion" in name else 0.5)
        prediction = np.roll(reference, aside, 2)
        seconds, results = {}, {}
        for _ in range(REPEATS):
            for side in (surface_distances, library):
                started = time.process_time()
                results[side] = numbers(side(prediction, reference, spacing))
                seconds.setdefault(side, []).append(time.process_time() - started)
        np.testing.assert_allclose(results[surface_distances], results[library], rtol=1e-6)
        ours, theirs = (sorted(seconds[side]) for side in (surface_distances, library))
        print(
            f"{name} {shape}: ours {ours[1]:.2f} s ({ours[0]:.2f}-{ours[-1]:.2f}), library "
            f"{theirs[1]:.2f} s ({theirs[0]:.2f}-{theirs[-1]:.2f}), {theirs[1] / ours[1]:.1f} times"
        )


if __name__ == "__main__":
    main()
