"""Bootstrap intervals of means over cases."""

from __future__ import annotations

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
    resampled = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_VALUES // len(values)),
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).bootstrap_distribution
    levels = _bca_levels(values, resampled)
    if np.isnan(levels).any():
        return None, "degenerate"
    low, high = np.quantile(resampled, levels)
    return (float(low), float(high)), ""


def _bca_levels(values: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """Return the two levels at which BCa reads resampled means, float (2,); NaN where all lie on
    one side of the mean (Efron and Tibshirani 1993, section 14.3).

    SciPy's takes the mean of all values but one, for each of them, which takes the square of the
    cases; they are known from the distances to the mean.
    """
    from scipy.special import ndtr, ndtri

    mean, distances = np.mean(values), values - np.mean(values)
    below = np.count_nonzero(resampled < mean) + np.count_nonzero(resampled <= mean)
    bias = ndtri(below / (2 * len(resampled)))
    if np.isinf(bias):
        return np.full(2, np.nan)
    acceleration = (distances**3).sum() / (6 * (distances**2).sum() ** 1.5)
    shifted = bias + ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return ndtr(bias + shifted / (1 - acceleration * shifted))
