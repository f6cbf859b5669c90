"""Time of resampling against scipy.ndimage.zoom, 96x160x160 -> 120x200x180 voxels.

Run: python tests/benchmarks/bench_resampling.py. Prints seconds (best of three), the ratio, and the
largest difference.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from nnunet_builtin.preprocessing.resampling import (
    resample_images,
    resample_label,
    resample_probabilities,
)

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = (96, 160, 160), (120, 200, 180)
FACTORS = [new / old for new, old in zip(NEW, OLD, strict=True)]


def zoom(array: np.ndarray, order: int) -> np.ndarray:
    return ndimage.zoom(array.astype(float), FACTORS, order=order, mode="nearest", grid_mode=True)


def zoom_images(images: np.ndarray) -> np.ndarray:
    return np.stack([zoom(image, 3).clip(image.min(), image.max()) for image in images]).astype(
        np.float32
    )


def zoom_label(label: np.ndarray) -> np.ndarray:
    result = np.zeros(NEW, label.dtype)
    for value in np.unique(label):
        result[zoom(label == value, 1) >= 0.5] = value
    return result


def zoom_probabilities(probabilities: np.ndarray) -> np.ndarray:
    return np.stack([zoom(channel, 1) for channel in probabilities]).astype(np.float32)


def timed(
    function: Callable[[np.ndarray], np.ndarray], array: np.ndarray
) -> tuple[float, np.ndarray]:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = function(array)
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def main() -> None:
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.normal(size=OLD), 6)
    image = (smooth / smooth.std() + random.normal(size=OLD) / 5).astype(np.float32)[None]
    probabilities = random.dirichlet(np.ones(3), OLD).transpose(3, 0, 1, 2).astype(np.float32)
    jobs: list[tuple[str, np.ndarray, Callable, Callable]] = [
        ("image, order 3", image, lambda x: resample_images(x, NEW, None), zoom_images),
        (
            "3 probabilities",
            probabilities,
            lambda x: resample_probabilities(x, NEW, None),
            zoom_probabilities,
        ),
    ]
    for count in (3, 30):
        label = np.digitize(smooth, np.quantile(smooth, np.linspace(0, 1, count + 1)[1:-1])).astype(
            np.int8
        )
        jobs.append(
            (
                f"label map, {count} values",
                label,
                lambda x: resample_label(x, NEW, None),
                zoom_label,
            )
        )
    for name, array, ours, scipys in jobs:
        (mine, result), (theirs, expected) = timed(ours, array), timed(scipys, array)
        difference = np.abs(result.astype(float) - expected).max()
        times = f"{mine:6.3f} s   scipy {theirs:6.3f} s   ratio {theirs / mine:5.1f}"
        print(f"{name:22} {times}   difference {difference:.1e}")


if __name__ == "__main__":
    main()
