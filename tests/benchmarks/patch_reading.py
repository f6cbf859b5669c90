"""Time to read random patches of prepared cases: the same reads for every side, run by its own
interpreter.
"""

import json
import statistics
import time

import numpy as np

EDGE = 128  # voxels of a cubic patch


def time_reads(read, shapes, count, seed=0):
    """Print JSON with the median seconds of a read, everything in memory before.

    `read(name, slices)` returns (images, label) arrays of a patch, `shapes` is {case name: (Z, Y,
    X)}. Positions are drawn from the seed, case after case; each patch is read twice and the second
    time counts.
    """
    rng = np.random.default_rng(seed)
    names = sorted(shapes)
    seconds, checksum = [], 0.0
    for index in range(count):
        name = names[index % len(names)]
        starts = [int(rng.integers(0, max(1, size - EDGE + 1))) for size in shapes[name]]
        slices = tuple(slice(start, start + EDGE) for start in starts)
        read(name, slices)
        started = time.perf_counter()
        images, label = read(name, slices)
        seconds.append(time.perf_counter() - started)
        checksum += float(images.mean()) + float((label > 0).mean())
    print(
        json.dumps(
            {
                "seconds": statistics.median(seconds),
                "shape": list(images.shape),
                "checksum": checksum,
            }
        )
    )
