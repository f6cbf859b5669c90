"""What chance decided for a training patch: records without randomness of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Channels = Mapping[int, float]


@dataclass(frozen=True)
class Elastic:
    """A smooth random displacement of the voxels of a patch.

    Attributes:
        noise: float32 (axes, *patch) from -1 to 1, before it is smoothed.
        deviations: Of the smoothing Gaussian along each axis, voxels.
        magnitudes: The largest displacement along each axis, voxels.
        factor: Of the smoothed noise, instead of stretching it to `magnitudes`; None stretches it. The Gaussian is then
            not periodic: noise outside the patch counts as 0.
    """

    noise: np.ndarray
    deviations: tuple[float, ...]
    magnitudes: tuple[float, ...] = ()
    factor: float | None = None


@dataclass(frozen=True)
class Operator:
    """A binary operation with a ball on one class of the previous stage.

    Attributes:
        channel: Foreground class, from 0.
        operation: `dilation`, `erosion`, `closing` or `opening`.
        radius: Of the ball, see `cascade.ball_size`.
    """

    channel: int
    operation: str
    radius: float


@dataclass(frozen=True)
class Removal:
    """The removal of one connected component of a class of the previous stage.

    Attributes:
        channel: Foreground class, from 0.
        position: From 0 to 1: which of the components that are small enough.
        size: Components of at least this share of the patch stay.
        fill: Class that takes its place, or None.
    """

    channel: int
    position: float
    size: float
    fill: int | None


@dataclass(frozen=True)
class Draw:
    """What chance decided for one sample. Channels without an entry are left alone.

    Attributes:
        angles: Radians about each axis of a volume, the one angle of a plane, or None.
        scale: Factor of the coordinates, one for all axes or one for each, or None; above 1 it shrinks what is seen.
        noise: float32 (C, *patch), added; or None.
        blur: Standard deviation in voxels.
        brightness: Factor of the intensity.
        contrast: Factor of the distance to the mean.
        zoom: Resolution of the simulated image as a fraction of the original.
        inverted_gamma, gamma: Exponents, of the negated and of the plain image.
        mirrored: Spatial axes to mirror.
        elastic: Displacement of voxels before the rotation, or None.
        shift: Added to the intensity.
        operators, removals: What happens to the label map of the previous stage.
    """

    angles: tuple[float, ...] | None = None
    scale: float | tuple[float, ...] | None = None
    noise: np.ndarray | None = None
    blur: Channels = field(default_factory=dict)
    brightness: Channels = field(default_factory=dict)
    contrast: Channels = field(default_factory=dict)
    zoom: Channels = field(default_factory=dict)
    inverted_gamma: Channels = field(default_factory=dict)
    gamma: Channels = field(default_factory=dict)
    mirrored: tuple[int, ...] = ()
    elastic: Elastic | None = None
    shift: Channels = field(default_factory=dict)
    operators: tuple[Operator, ...] = ()
    removals: tuple[Removal, ...] = ()
