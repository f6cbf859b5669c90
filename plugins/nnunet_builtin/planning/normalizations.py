"""Normalisation of channels by their names (spec: planning, section 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nnunet_core.data.plans import Normalization

if TYPE_CHECKING:
    from nnunet_core.data.fingerprint import Fingerprint

#: Normalisation by channel name; z-score for every other name (spec: planning, section 3; names of
#: v1 and v2).
SCHEMES: Mapping[str, str] = {
    "CT": "CT",
    "ct": "CT",
    "noNorm": "none",
    "zscore": "zscore",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}
MASK_BELOW = 0.75
_LIKE_CT = re.compile(r"(?<![a-z])(cb|ld)?cta?(?![a-z])|hounsfield|\bhu\b|tomogra", re.IGNORECASE)


def normalization(
    fingerprint: Fingerprint, schemes: Mapping[str, str] = SCHEMES
) -> tuple[Normalization, ...]:
    """Return the scheme of each channel from its name (spec: planning, section 3; fingerprint,
    section 4).
    """
    cropped = float(np.median([case.size_reduction for case in fingerprint.cases])) < MASK_BELOW
    statistics = fingerprint.intensities or (None,) * len(fingerprint.channels)
    chosen = []
    for name, values in zip(fingerprint.channels, statistics, strict=True):
        # v1 looks for CT anywhere in the name here, and for the name CT where it chooses the scheme
        use_mask = "CT" not in name and cropped
        scheme = schemes.get(name, "zscore")
        chosen.append(Normalization(scheme=scheme, use_mask=use_mask, statistics=values))
    return tuple(chosen)


def unknown_names(fingerprint: Fingerprint, schemes: Mapping[str, str] = SCHEMES) -> list[str]:
    """Return a note on the channels whose names stand for no scheme, and a question for each that
    may be computed tomography.
    """
    unknown = {i: name for i, name in enumerate(fingerprint.channels) if name not in schemes}
    if not unknown:
        return []
    shown = ", ".join(f"{index} '{name}'" for index, name in unknown.items())
    subject = f"channel {shown} is" if len(unknown) == 1 else f"channels {shown} are"
    note = (
        f"{subject} normalised by z-score, as every name without a scheme of its own; another "
        f"one: --set preprocessor.normalization.{min(unknown)}=SCHEME"
    )
    questions = [
        f"channel {index} '{name}': if it holds Hounsfield units, name it CT, or give "
        f"--set preprocessor.normalization.{index}=CT"
        for index, name in unknown.items()
        if _LIKE_CT.search(name)
    ]
    return [note, *questions]
