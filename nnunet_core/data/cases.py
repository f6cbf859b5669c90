"""Cases in memory: as they were read, and as networks get them.

Arrays of images are (C, Z, Y, X) on the grid of the file, and (C, *spatial) with permuted axes once
prepared. Spacing is in mm, shapes in voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.data.metadata import JsonMapping

if TYPE_CHECKING:
    import numpy as np

#: How spatial transforms and resolutions treat an array: interpolated and averaged, or as values
#: that stay what they are.
Like = Literal["image", "label"]


@dataclass(frozen=True)
class Case:
    """A raw case in memory.

    Attributes:
        name: Case name.
        images: float32 (C, Z, Y, X).
        label: Integer (Z, Y, X), or None for cases to predict.
        geometry: Of every channel and of the label.
        metadata: What the dataset says of the case (docs: reference/dataset-json), JSON values.
        labels: What the values of `label` mean; None for cases to predict.
    """

    name: str
    images: np.ndarray
    label: np.ndarray | None
    geometry: Geometry
    metadata: Mapping[str, Any] = field(default_factory=dict)
    labels: Labels | None = None


@dataclass(frozen=True)
class PreparedGeometry:
    """How a prepared array lies in its original image: what `Preprocessor.restore` needs.

    Attributes:
        original: Geometry of the file.
        crop_box: ((start, stop), ...) per axis (z, y, x) of the file's grid, voxels.
        transpose_forward: Axis permutation applied after cropping.
        prepared_shape: Spatial shape of the prepared array, permuted axes.
        prepared_spacing: mm, permuted axes.
        metadata: JSON values for `restore`; where a preprocessor leaves it empty, it becomes that
            of the case.
    """

    original: Geometry
    crop_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    transpose_forward: tuple[int, int, int]
    prepared_shape: tuple[int, int, int]
    prepared_spacing: tuple[float, float, float]
    metadata: JsonMapping = field(default_factory=dict)

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """Voxels of the crop box, axis order (z, y, x)."""
        (z0, z1), (y0, y1), (x0, x1) = self.crop_box
        return z1 - z0, y1 - y0, x1 - x0


@dataclass(frozen=True)
class ExtraArray:
    """An array on the grid of a prepared case, for a loss (docs: how-to/extra-data).

    Attributes:
        array: (K, *prepared_shape) of float32, float16, int8, int16 or uint8; integers where it is
            like a label.
        like: `image` or `label`: how it is moved with the patch, and brought to the resolutions of
            a network.
    """

    array: np.ndarray
    like: Like


@dataclass(frozen=True)
class PreparedCase:
    """A case that a network can be trained on or applied to.

    Attributes:
        name: Case name.
        images: float32 (C, *prepared_shape), cropped, permuted, resampled, normalised.
        label: int8 or int16 (*prepared_shape), -1 outside the non-zero region; also for cases
            without a label file, where it is 0 inside and -1 outside.
        geometry: The way back.
        class_locations: {foreground value: integer (n, 3) voxel coordinates}, for foreground
            oversampling; empty for cases without a label file.
        extra: Whatever else a trainer should know, JSON values.
        arrays: {name of a-z, 0-9 and _: array} for losses; the same names and channels for every
            case.
    """

    name: str
    images: np.ndarray
    label: np.ndarray
    geometry: PreparedGeometry
    class_locations: Mapping[int, np.ndarray] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, ExtraArray] = field(default_factory=dict)
