"""The default preprocessor: crop, permute axes, resample, normalise; and probabilities back to the
original grid.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from nnunet_builtin.preprocessing.cropping import crop
from nnunet_builtin.preprocessing.normalization import SchemeName, find_scheme, normalize
from nnunet_builtin.preprocessing.orientation import KEPT, axes_to_ras
from nnunet_builtin.preprocessing.resampling import (
    CPU,
    low_axis,
    new_shape,
    resample_images,
    resample_label,
    resample_probabilities,
)
from nnunet_builtin.preprocessing.restoring import Grid, restored_labels, restored_slabs
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.cases import Case, PreparedCase, PreparedGeometry
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.errors import ImageError, UsageError
from nnunet_core.runtime.memory import GB, available

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nnunet_core.contracts.predictor import Slabs
    from nnunet_core.data.images import Geometry
    from nnunet_core.data.labels import Labels
    from nnunet_core.data.plans import Configuration, Normalization

# of a case while it is resampled: as it was, as it will be, and between; label and masks
_BYTES_PER_VALUE, _BYTES_PER_VOXEL = 12, 8
_SMALL = 1 << 28
_LOCATIONS_SEED = 1234
_LOCATIONS = 10_000
_LOCATIONS_FRACTION = 0.01

Spacing = tuple[float, float, float]


class DefaultPreprocessor:
    """Prepares cases as nnU-Net v1 does (spec: preprocessing; inference, section 4), or as v2.

    Args:
        resample: Axes that take the target spacing: `all`, `in_plane` (axis 0 of the permuted axes
            keeps every case's own slices, for 2D networks), or `none`.
        order: Spline order of images; labels and probabilities are always resampled linearly.
        order_z: Spline order of images along an axis of low resolution that is resampled apart; 0
            is nearest neighbour.
        normalization: {channel number: scheme} instead of what the plans say: CT, CT2, zscore,
            none, rescale_to_0_1, rgb_to_0_1.
        steps: `v1` resamples, then normalises. `v2` normalises first; and where it differs from v1,
            takes its way back, and the label maps of a cascade, from the axis of low resolution of
            the prepared case.
        separate_z: Resample an axis of low resolution apart; False takes all axes alike.
        orientation: `file` takes the axes of images as they are. `RAS` turns images to the axes of
            the body first, and what comes back to those of the file: for networks that were trained
            so.
    """

    def __init__(
        self,
        resample: Literal["all", "in_plane", "none"] = "all",
        order: Literal[1, 3] = 3,
        order_z: Literal[0, 1, 3] = 0,
        normalization: Mapping[int, SchemeName] | None = None,
        steps: Literal["v1", "v2"] = "v1",
        separate_z: bool = True,
        orientation: Literal["file", "RAS"] = "file",
    ) -> None:
        self.resample = resample
        self.order = order
        self.order_z = order_z
        self.normalization = normalization
        self.steps = steps
        self.separate_z = separate_z
        self.orientation = orientation
        self._device = CPU

    def on(self, device: str) -> DefaultPreprocessor:
        """Return a copy that resamples images and probabilities on a device: cpu, cuda, cuda:1,
        mps, or auto.
        """
        if device == CPU:
            return self
        from nnunet_builtin.computing.devices import resolve

        moved = copy.copy(self)
        moved._device = str(resolve(Runtime(device)).device)
        return moved

    def prepare(
        self, case: Case, configuration: Configuration, foreground: Sequence[int] = ()
    ) -> PreparedCase:
        """Crop, permute, resample, normalise one case; locate `foreground` values when it has a
        label.

        The arrays of `case` are left as they are.

        Raises:
            ImageError: The image has no non-zero voxel, is flat where the configuration is for
                volumes (or the reverse), or would fill the memory at the spacing of the
                configuration.
            UsageError: The configuration is for another number of channels, or names an unknown
                normalisation scheme.
        """
        schemes = self._schemes(case, configuration)
        axes, reversed_axes = self._turn(case.geometry, configuration.transpose_forward)
        images, label, box = crop(case)
        images = np.flip(images, tuple(axis + 1 for axis in reversed_axes))
        images = images.transpose(0, *(axis + 1 for axis in axes))
        label = np.flip(label, reversed_axes).transpose(axes)
        original, target = self._spacings(case.geometry.spacing, axes, configuration)
        shape = new_shape(label.shape, original, target)
        _check_target(case, original, target, shape)
        images = _without_nan(images)
        if self.steps == "v2":
            images = _normalized(_own(images, case.images), label, schemes)
        axis = self._low_axis(original, target)
        images = resample_images(images, shape, axis, self.order, self.order_z, self._device)
        label = resample_label(label, shape, axis, self.steps == "v2")
        label = np.where(label < -1, 0, label).astype(np.int8 if label.max() <= 127 else np.int16)
        if self.steps == "v1":
            images = _normalized(_own(images, case.images), label, schemes)
        geometry = PreparedGeometry(case.geometry, box, axes, _triple(shape), target)
        locations = {} if case.label is None else class_locations(label, foreground)
        return PreparedCase(case.name, images, label, geometry, locations)

    def prepare_label(self, label: np.ndarray, geometry: PreparedGeometry) -> np.ndarray:
        """Take a label map (Z, Y, X) of the file's grid to that of a prepared case (spec:
        inference, section 6).

        It is cropped first, which v1 forgot; then linear per value, along all axes alike; in the
        steps of v2 as the label of the case.
        """
        inside = tuple(slice(start, stop) for start, stop in geometry.crop_box)
        axes = geometry.transpose_forward
        cropped = self._as_file(label[inside], geometry).transpose(axes)
        spacing = [geometry.original.spacing[axis] for axis in axes]
        axis = self._low_axis(spacing, geometry.prepared_spacing) if self.steps == "v2" else None
        label = np.ascontiguousarray(cropped)
        return resample_label(label, geometry.prepared_shape, axis, self.steps == "v2")

    def restore(self, probabilities: np.ndarray, geometry: PreparedGeometry) -> np.ndarray:
        """Resample (K, *prepared_shape) probabilities to float32 (K, Z, Y, X) on the original grid.

        Linear, per class, without renormalisation. Voxels outside the crop box are 0 in every
        channel.
        """
        grid = self._grid(geometry, probabilities.shape)
        permuted = probabilities.transpose(0, *(axis + 1 for axis in grid.back))
        restored = np.zeros((len(probabilities), *geometry.original.shape), np.float32)
        box = tuple(slice(start, stop) for start, stop in geometry.crop_box)
        resample_probabilities(
            permuted,
            geometry.cropped_shape,
            self._low_axis_back(geometry),
            self._as_file(restored[(slice(None), *box)], geometry),
            self._device,
        )
        return restored

    def restore_labels(
        self, slabs: Slabs, geometry: PreparedGeometry, labels: Labels
    ) -> np.ndarray:
        """Return the label map (Z, Y, X) of the original grid, uint8 or uint16, from slabs of
        probabilities or logits; interpolated on the CPU, and only where it has to be.
        """
        box = tuple(slice(start, stop) for start, stop in geometry.crop_box)
        found = restored_labels(slabs, self._grid(geometry, slabs.shape), labels)
        result = np.zeros(geometry.original.shape, found.dtype)
        result[box] = self._as_file(found, geometry)
        return result

    def restore_slabs(
        self, slabs: Slabs, geometry: PreparedGeometry
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield what `restore` returns, slab by slab: first slice, float32 (K, slices, Y, X); where
        the axis was reversed, the last slices come first.
        """
        (first, last), *others = geometry.crop_box
        box = (slice(None), slice(None), *(slice(*sides) for sides in others))
        size, (slices, *plane) = slabs.shape[0], geometry.original.shape
        backwards = 0 in self._reversed(geometry.original)
        for start in (*range(first), *range(last, slices)):
            yield start, np.zeros((size, 1, *plane), np.float32)
        for start, part in restored_slabs(slabs, self._grid(geometry, slabs.shape)):
            slab = found = self._as_file(part, geometry)
            if list(found.shape[2:]) != plane:
                slab = np.zeros((*found.shape[:2], *plane), np.float32)
                slab[box] = found
            yield last - start - part.shape[1] if backwards else first + start, slab

    def _grid(self, geometry: PreparedGeometry, shape: Sequence[int]) -> Grid:
        """Return the way back of values of `shape` (K, *prepared_shape); see also `_as_file`.

        Raises:
            ImageError: They are of another grid.
        """
        if tuple(shape[1:]) != geometry.prepared_shape:
            raise ImageError(
                f"The probabilities have shape {tuple(shape)}; the prepared case has "
                f"{geometry.prepared_shape} after the class axis."
            )
        return Grid.of(
            geometry.prepared_shape,
            geometry.transpose_forward,
            geometry.cropped_shape,
            self._low_axis_back(geometry),
        )

    def _low_axis(self, first: Sequence[float], second: Sequence[float]) -> int | None:
        """Return the axis to resample apart; the first spacing decides if it is anisotropic."""
        return low_axis(first, second) if self.separate_z else None

    def _low_axis_back(self, geometry: PreparedGeometry) -> int | None:
        """Return the axis of the file along which probabilities are taken from the nearest
        sample.
        """
        back = [geometry.transpose_forward.index(axis) for axis in range(3)]
        prepared, original = [geometry.prepared_spacing[a] for a in back], geometry.original.spacing
        if self.steps == "v2":
            return self._low_axis(prepared, original)
        return self._low_axis(original, prepared)

    def _turn(
        self, geometry: Geometry, transpose_forward: tuple[int, int, int]
    ) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """Return the axes of the file in the order of prepared arrays, and those that are
        reversed before.
        """
        order = KEPT if self.orientation == "file" else axes_to_ras(geometry)[0]
        first, second, third = (order[axis] for axis in transpose_forward)
        return (first, second, third), self._reversed(geometry)

    def _reversed(self, geometry: Geometry) -> tuple[int, ...]:
        return () if self.orientation == "file" else axes_to_ras(geometry)[1]

    def _as_file(self, array: np.ndarray, geometry: PreparedGeometry) -> np.ndarray:
        """Return a view (..., z, y, x) with the axes that were reversed in the direction of the
        file, or the other way round.
        """
        lead = array.ndim - 3
        return np.flip(array, tuple(lead + axis for axis in self._reversed(geometry.original)))

    def _spacings(
        self, spacing: Spacing, axes: tuple[int, int, int], configuration: Configuration
    ) -> tuple[Spacing, Spacing]:
        """Return the case's and the target spacing, permuted axes."""
        first, second, third = axes
        original = spacing[first], spacing[second], spacing[third]
        target = configuration.spacing
        kept = {"all": target, "in_plane": (original[0], *target[1:]), "none": original}
        return original, kept[self.resample]

    def _schemes(self, case: Case, configuration: Configuration) -> list[Normalization]:
        """Return how each channel is normalised; find out before the long work what would fail
        after it.
        """
        channels, schemes = case.images.shape[0], list(configuration.normalization)
        if channels != len(schemes):
            raise UsageError(
                f"Case {case.name} has {channels} image channels, the configuration normalises "
                f"{len(schemes)}. Use the plans of this dataset."
            )
        for channel, scheme in (self.normalization or {}).items():
            if not 0 <= channel < channels:
                raise UsageError(
                    f"preprocessor.normalization names channel {channel}; the dataset has channels "
                    f"0 to {channels - 1}."
                )
            schemes[channel] = schemes[channel].model_copy(update={"scheme": scheme})
        for normalization in schemes:
            find_scheme(normalization.scheme)
        return schemes


def _check_target(case: Case, original: Spacing, target: Spacing, shape: Sequence[int]) -> None:
    """Raise ImageError for a case whose spacing cannot be meant, before it takes the memory."""
    flat = [SLICE_SPACING_2D in spacing for spacing in (original, target)]
    if flat[0] != flat[1]:
        kinds = ("a volume", "2D images") if flat[1] else ("a 2D image", "volumes")
        raise ImageError(
            f"Case {case.name} is {kinds[0]}, the configuration was planned for {kinds[1]}. Is the "
            "file what it should be?"
        )
    needed = math.prod(shape) * (_BYTES_PER_VALUE * len(case.images) + _BYTES_PER_VOXEL)
    if needed > _SMALL and needed > available():
        raise ImageError(
            f"Case {case.name} would have {' x '.join(map(str, shape))} voxels at the spacing of "
            f"the configuration, {_shown(target)} mm; its own is {_shown(original)} mm. That takes "
            f"{needed / GB:.0f} GB, {available() / GB:.1f} GB of memory are free. Is the spacing "
            "in its header right? Otherwise use a machine with more memory."
        )


def _shown(spacing: Spacing) -> str:
    return " x ".join(f"{value:.4g}" for value in spacing)


def class_locations(label: np.ndarray, foreground: Sequence[int]) -> dict[int, np.ndarray]:
    """Draw voxels of each foreground value for oversampling: 10,000 or 1 %, whichever is more, or
    all there are.

    Args:
        label: Prepared label map.
        foreground: Values, in the order in which random numbers are used; an absent value uses
            none.

    Returns:
        {value: integer (n, 3) voxel coordinates}.
    """
    random = np.random.RandomState(_LOCATIONS_SEED)
    locations = {}
    for value in foreground:
        voxels = np.flatnonzero(label == value)
        count = max(min(_LOCATIONS, voxels.size), math.ceil(_LOCATIONS_FRACTION * voxels.size))
        chosen = voxels[random.choice(voxels.size, count, replace=False)]
        locations[value] = np.stack(np.unravel_index(chosen, label.shape), axis=1)
    return locations


def _without_nan(images: np.ndarray) -> np.ndarray:
    missing = np.isnan(images)
    return np.where(missing, np.float32(0), images) if missing.any() else images


def _normalized(
    images: np.ndarray, label: np.ndarray, schemes: Sequence[Normalization]
) -> np.ndarray:
    """Normalise every channel of (C, *spatial) in place; return the array."""
    for image, normalization in zip(images, schemes, strict=True):
        normalize(image, label, normalization)
    return images


def _own(images: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return C-contiguous float32 images that may be changed without changing `source`."""
    return np.array(
        images, np.float32, order="C", copy=True if np.may_share_memory(images, source) else None
    )


def _triple(shape: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = shape
    return first, second, third
