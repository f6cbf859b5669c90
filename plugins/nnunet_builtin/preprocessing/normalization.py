"""Intensity normalisation of one channel (spec: preprocessing, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from nnunet_core.errors import ImageError, UsageError, nearest

if TYPE_CHECKING:
    from nnunet_core.data.fingerprint import IntensityStatistics
    from nnunet_core.data.plans import Normalization

SchemeName = Literal["CT", "CT2", "zscore", "none", "rescale_to_0_1", "rgb_to_0_1"]

_EPSILON = 1e-8
_BRIGHTEST = 255

#: normalise(image, label, normalization): changes the float32 image in place; label < 0 is outside
#: the non-zero region.
Scheme = Callable[[np.ndarray, np.ndarray, "Normalization"], None]


def normalize(image: np.ndarray, label: np.ndarray, normalization: Normalization) -> None:
    """Normalise one channel in place; means and deviations are float32 reductions.

    Args:
        image: float32 (*spatial).
        label: Integer (*spatial), -1 outside the non-zero region.
        normalization: Scheme, whether to keep to the non-zero region, and the dataset's
            intensities.

    Raises:
        UsageError: The scheme does not exist, or it needs intensity statistics and there are none.
        ImageError: CT2 and no voxel within the dataset's intensities.
    """
    find_scheme(normalization.scheme)(image, label, normalization)


def find_scheme(name: str) -> Scheme:
    """Return the function of a scheme.

    Raises:
        UsageError: There is no such scheme; the message lists what exists.
    """
    schemes: dict[str, Scheme] = {
        "CT": _ct,
        "CT2": _ct2,
        "zscore": _zscore,
        "none": _none,
        "rescale_to_0_1": _rescale,
        "rgb_to_0_1": _rgb,
    }
    if name not in schemes:
        raise UsageError(
            f"There is no normalisation scheme '{name}'.{nearest(name, schemes)} Schemes: "
            f"{', '.join(schemes)}. Correct 'normalization' in the plans."
        )
    return schemes[name]


def _ct(image: np.ndarray, label: np.ndarray, normalization: Normalization) -> None:
    statistics = _statistics(normalization)
    np.clip(image, statistics.percentile_00_5, statistics.percentile_99_5, out=image)
    image -= statistics.mean
    image /= statistics.sd
    if normalization.use_mask:
        image[label < 0] = 0


def _ct2(image: np.ndarray, label: np.ndarray, normalization: Normalization) -> None:
    statistics = _statistics(normalization)
    lower, upper = statistics.percentile_00_5, statistics.percentile_99_5
    inside = image[(image > lower) & (image < upper)]
    if not inside.size:
        raise ImageError(
            f"No voxel lies between {lower:g} and {upper:g}, the intensities of the dataset's "
            f"foreground; CT2 needs some there. The image spans {image.min():g} to "
            f"{image.max():g}. Leave the case out, or use 'CT'."
        )
    np.clip(image, lower, upper, out=image)
    image -= inside.mean()
    image /= inside.std()
    if normalization.use_mask:
        image[label < 0] = 0


def _zscore(image: np.ndarray, label: np.ndarray, normalization: Normalization) -> None:
    if not normalization.use_mask:
        mean, deviation = image.mean(), image.std()
        image -= mean
        image /= deviation + _EPSILON
        return
    mask = label >= 0
    inside = image[mask]
    image[...] = 0
    if inside.size:
        image[mask] = (inside - inside.mean()) / (inside.std() + _EPSILON)


def _none(image: np.ndarray, label: np.ndarray, normalization: Normalization) -> None:
    """Leave the intensities as they are."""


def _rescale(image: np.ndarray, _label: np.ndarray, _normalization: Normalization) -> None:
    """Map the intensities of the case linearly to 0..1; a constant image becomes 0 (v2)."""
    lowest, highest = image.min(), image.max()
    image -= lowest
    image /= max(highest - lowest, np.float32(_EPSILON))


def _rgb(image: np.ndarray, _label: np.ndarray, _normalization: Normalization) -> None:
    """Divide pictures of 8 bits per colour by 255 (v1's RGB planner, v2)."""
    if image.min() < 0 or image.max() > _BRIGHTEST:
        raise ImageError(
            f"rgb_to_0_1 takes intensities from 0 to {_BRIGHTEST}, the image spans {image.min():g} "
            f"to {image.max():g}. Use rescale_to_0_1 or zscore for this channel."
        )
    image /= _BRIGHTEST


def _statistics(normalization: Normalization) -> IntensityStatistics:
    statistics = normalization.statistics
    if statistics is None or not statistics.sd > 0:
        found = "none" if statistics is None else f"a standard deviation of {statistics.sd}"
        raise UsageError(
            f"Scheme '{normalization.scheme}' needs the foreground intensities of the dataset; the "
            f"plans have {found}. Plan again with labelled training cases, or use scheme 'zscore'."
        )
    return statistics
