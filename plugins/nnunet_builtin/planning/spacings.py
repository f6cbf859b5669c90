"""Target spacings of full and of low resolution (spec: planning, sections 2 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nnunet_core.data.fingerprint import Fingerprint

ANISOTROPY = 3


def median_spacing(fingerprint: Fingerprint) -> np.ndarray:
    """Return the median spacing per axis (z, y, x) in mm."""
    return np.median([case.spacing for case in fingerprint.cases], axis=0)


def target_spacing(fingerprint: Fingerprint, percentile: float = 10) -> tuple[np.ndarray, str]:
    """Return the 3D target spacing (z, y, x) in mm, and a note for people (spec: planning, section
    2).

    It is the median. An axis that is much coarser and has far fewer voxels than the others takes a
    percentile of its spacings.
    """
    spacing = median_spacing(fingerprint)
    sizes = np.median([case.size for case in fingerprint.cases], axis=0)
    worst = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != worst]
    finest = spacing[others].max()
    coarse = spacing[worst] > ANISOTROPY * finest
    thin = ANISOTROPY * sizes[worst] < sizes[others].min()
    if not (coarse and thin):
        return spacing, ""
    median = spacing[worst]
    low = np.percentile([case.spacing[worst] for case in fingerprint.cases], percentile)
    spacing[worst] = finest + 1e-5 if low < finest else low
    return spacing, (
        f"axis {'zyx'[worst]} is anisotropic ({median:.4g} mm): its spacing is the "
        f"{percentile:g}th percentile"
    )


def coarser(spacing: np.ndarray, factor: float = 1.01) -> np.ndarray:
    """Return a spacing one step coarser: of axes less than half as coarse as the coarsest, or of
    all (section 8).
    """
    finer = spacing.max() / spacing > 2
    changed = spacing.copy()
    changed[finer if finer.any() else slice(None)] *= factor
    return changed
