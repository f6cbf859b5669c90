"""Bootstrap intervals of means over cases."""

from __future__ import annotations

import math

import numpy as np

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
#: Below this many cases, intervals of means are known to be too narrow (André et al. 2025).
FEW_CASES = 50
#: Values that bootstrap samples hold at once: 32 MB.
_BATCH_VALUES = 4_000_000


def mean_interval(values: np.ndarray) -> tuple[tuple[float, float] | None, str]:
    """Return the bootstrap interval of a mean (BCa, two-sided), or None and why there is none.

    Args:
        values: One per case, float (cases,).
    """
    from scipy import stats

    if len(values) < 2:
        return None, "one case"
    if not np.isfinite(values).all():
        return None, "infinite in some cases"
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return None, "equal in all cases"
    found = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_VALUES // len(values)),
        method="BCa",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    if math.isnan(found.low) or math.isnan(found.high):
        return None, "degenerate"
    return (float(found.low), float(found.high)), ""
