"""How sure a prediction is, voxel by voxel: the entropy of its probabilities."""

from __future__ import annotations

import numpy as np


def entropy(probabilities: np.ndarray, regions: bool) -> np.ndarray:
    """Return the entropy of probabilities (K, ...), float32 (...), from 0 (sure) to 1 (no idea).

    Of K classes it is divided by log K. Of regions it is the mean of the entropies of belonging to
    each or not, divided by log 2. Where every class is 0, outside of what the networks saw, it is
    0.
    """
    values = probabilities.astype(np.float32, copy=False)
    if regions:
        found = (_terms(values) + _terms(1 - values)).mean(axis=0) / np.log(2)
    else:
        found = _terms(values).sum(axis=0) / np.log(len(values))
    return np.clip(found, 0, 1).astype(np.float32)


def _terms(values: np.ndarray) -> np.ndarray:
    logarithms = np.log(values, out=np.zeros_like(values), where=values > 0)
    return -values * logarithms
