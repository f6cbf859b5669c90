"""Sizes and CPU times of files of probabilities: `CASE.b2nd` against a compressed npz.

python tests/benchmarks/probability_files.py [FILE.npz ...]

Arguments are npz files of probabilities (K, Z, Y, X), as nnU-Net v1 and v2 write them; a drawn case
of 14 classes is measured beside them.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnunet_core.store.probabilities import open_probabilities, write_probabilities

REPEATS = 2


def drawn(classes=14, shape=(60, 256, 256)):
    """Return probabilities of smooth logits with some noise; nearly none is 0 or 1."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(classes, shape[0] // 5, shape[1] // 16, shape[2] // 16))
    logits = np.stack([ndimage.zoom(low, (5, 16, 16), order=1) for low in coarse]) * 6
    logits += random.normal(0, 0.15, logits.shape)
    odds = np.exp(logits - logits.max(axis=0)).astype(np.float32)
    return odds / odds.sum(axis=0)


def timed(function):
    """Return the least CPU seconds of some calls, and what the last one returned."""
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        result = function()
        seconds.append(time.process_time() - started)
    return min(seconds), result


def measure(name, probabilities, folder):
    """Print a row for each format."""
    half = probabilities.astype(np.float16)
    npz, b2nd = folder / "case.npz", folder / "case.b2nd"
    rows = {
        "npz": (
            npz,
            lambda: np.savez_compressed(npz, probabilities=half),
            lambda: np.load(npz)["probabilities"],
            lambda: np.load(npz)["probabilities"][:, :1],
        ),
        "b2nd": (
            b2nd,
            lambda: write_probabilities(b2nd, probabilities),
            lambda: open_probabilities(b2nd)[:],
            lambda: open_probabilities(b2nd)[:, :1],
        ),
    }
    print(f"{name}: {half.shape}, {half.nbytes / 1e6:.1f} MB in half precision")
    for kind, (path, write, read, slab) in rows.items():
        written, _ = timed(write)
        whole, found = timed(read)
        part, _ = timed(slab)
        assert np.array_equal(found, half)
        print(
            f"  {kind:5} {path.stat().st_size / 1e6:8.2f} MB  written in {written:.3f} s, read in "
            f"{whole:.3f} s, one slice in {part:.4f} s"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for given in sys.argv[1:]:
            with np.load(given) as content:
                measure(given, next(iter(content.values())), Path(temporary))
        measure("drawn, 14 classes", drawn(), Path(temporary))
