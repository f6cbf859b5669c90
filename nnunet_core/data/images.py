"""Images in memory: geometry, header and voxels; and what reads and writes them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from nnunet_core.errors import ImageError, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

#: The spacing of the slice axis of a 2D image, in mm: no planner resamples across it (spec:
#: dataset, section 2).
SLICE_SPACING_2D = 999.0
#: Parts of a voxel by which the corners of two grids may lie apart: below the first, headers only
#: round differently; up to the second it is the same grid, with a word.
_ROUNDING, _SAME_GRID = 0.001, 0.1
_OUTLIER = 10  # times the median spacing


def ending_of(name: str, endings: Iterable[str]) -> str:
    """Return the longest of `endings` (`.nii.gz`) that a file name has, in letters of any case; or
    an empty string.
    """
    lower, found = name.lower(), ""
    for ending in endings:
        if lower.endswith(ending.lower()) and len(ending) > len(found):
            found = ending
    return found


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an image lie.

    Attributes:
        shape: Voxels, axis order (z, y, x); 2D images have one slice.
        spacing: mm, axis order (z, y, x).
        origin: mm, SimpleITK order (x, y, z).
        direction: Row-major 3x3 matrix, SimpleITK order.
        forms: Numbers of a NIfTI header that says twice, and differently, where its voxels lie;
            files of predictions say the same. Empty otherwise.
        elsewhere: Where they lie by the one of these forms that is not used; what lies there lies
            on the same grid, with a word.
        notes: What is doubtful about all this, sentences for people.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    forms: tuple[float, ...] = field(default=(), compare=False)
    elsewhere: Geometry | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def differences(self, other: Geometry) -> list[str]:
        """Return the names of the fields in which two images differ: none where every corner of
        both lies at one place, within a tenth of a voxel.
        """
        different = [] if self.shape == other.shape else ["shape"]
        if not different and self._apart(other) <= _SAME_GRID:
            return []
        for name in ("spacing", "origin", "direction"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if len(mine) != len(theirs) or not np.allclose(mine, theirs):
                different.append(name)
        return different or ["place"]

    def contrast(self, other: Geometry, mine: str, theirs: str) -> str:
        """Return in which fields two images differ and by what values, for a message; empty where
        they lie on one grid.

        Args:
            other: The other geometry.
            mine: What this one is called: `image`.
            theirs: What the other is called: `label`.
        """
        told = []
        for name in self.differences(other):
            if name == "place":  # every field is nearly equal, and yet the corners lie apart
                apart = self.displacement(other)
                told.append(f"the {theirs} lies {apart:.2g} voxels beside the {mine}")
            else:
                own, others = getattr(self, name), getattr(other, name)
                told.append(f"{name} {own} of the {mine}, {others} of the {theirs}")
        return "; ".join(told)

    def displacement(self, other: Geometry) -> float:
        """Return how far the corners of two grids of one shape lie apart at most, in voxels of this
        one.
        """
        try:
            to_voxels = np.linalg.inv(self._matrix())
        except np.linalg.LinAlgError:
            return np.inf
        indices = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in self.shape[::-1]))))
        apart = (other._matrix() - self._matrix()) @ indices.T
        apart += np.subtract(other.origin, self.origin)[:, None]
        found = float(np.abs(to_voxels @ apart).max())
        return found if np.isfinite(found) else np.inf

    def noted(self, other: Geometry, path: Path) -> Geometry:
        """Return this geometry with the notes of `path`, which lies on the same grid: its own, and
        that it is displaced by a part of a voxel.
        """
        notes = [note for note in other.notes if note not in self.notes]
        if (displacement := self._apart(other)) > _ROUNDING:
            notes.append(f"{path} lies {displacement:.2g} voxels beside its image.")
        return replace(self, notes=(*self.notes, *notes)) if notes else self

    def _apart(self, other: Geometry) -> float:
        """Return the displacement of the nearest of the places that both may lie at."""
        mine = [place for place in (self, self.elsewhere) if place is not None]
        theirs = [place for place in (other, other.elsewhere) if place is not None]
        return min(first.displacement(second) for first in mine for second in theirs)

    def _matrix(self) -> np.ndarray:
        """Return the steps in mm along the axes x, y, z, as columns."""
        return np.reshape(self.direction, (3, 3)) * np.array(self.spacing[::-1])


@dataclass(frozen=True)
class Header:
    """What is known of an image before its voxels are read.

    Attributes:
        shape: Voxels, axis order (z, y, x).
        spacing: mm, axis order (z, y, x).
        channels: Values per voxel.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: int


@dataclass(frozen=True)
class Image:
    """An image with its geometry.

    Attributes:
        array: (C, Z, Y, X) in the type of the file; scalar images have one channel.
        geometry: Of every channel.
    """

    array: np.ndarray
    geometry: Geometry


class ImageFormat(Protocol):
    """Reads and writes one family of image files.

    Everything that is written as an image goes through `write`: predicted label maps, a dataset
    that is made. What a file needs beside voxels and geometry (a colour table, the metadata of
    DICOM SEG) is the affair of its format.
    """

    endings: tuple[str, ...]

    def header(self, path: Path) -> Header:
        """Read size and spacing of one file without its voxels. Raises ImageError."""
        ...

    def read(self, path: Path) -> Image:
        """Read one file to (C, Z, Y, X). Raises ImageError."""
        ...

    def write(self, path: Path, array: np.ndarray, geometry: Geometry) -> None:
        """Write an array (Z, Y, X) atomically, with the geometry of the image that it belongs to.

        Label maps are uint8, or uint16 where the dataset has a label above 255
        (`labels.label_type`).

        Raises:
            ImageError: The format cannot hold the array, or is read only.
            StorageError: The disk is full, or the folder cannot be written.
        """
        ...


@runtime_checkable
class DetachedFormat(Protocol):
    """An image format with files that hold a header only; the voxels are in others."""

    def parts(self, path: Path) -> tuple[Path, ...]:
        """Return the files beside `path` that hold its voxels; none for most files. Raises
        ImageError.
        """
        ...


def stack_channels(images: Sequence[Image], names: Sequence[Path]) -> Image:
    """Join the channel files of one case to a float32 image (C, Z, Y, X); geometry is that of the
    first file.

    Raises:
        ImageError: The files differ in shape, spacing, origin or direction.
    """
    first = images[0]
    geometry = first.geometry
    for image, name in zip(images[1:], names[1:], strict=True):
        if different := geometry.differences(image.geometry):
            raise ImageError(
                f"{name} and {names[0]} differ in {', '.join(different)}; channels must lie on one "
                "grid: resample them."
            )
        geometry = geometry.noted(image.geometry, name)
    arrays = [image.array.astype(np.float32, copy=False) for image in images]
    return Image(np.concatenate(arrays), geometry)


def spacing_outliers(spacings: Mapping[str, Sequence[float]]) -> list[str]:
    """Return a sentence for each case whose spacing (mm; z, y, x) is far from the median of all."""
    if not spacings:
        return []
    every = np.array(list(spacings.values()))
    usual = np.median(every, axis=0)
    return [
        _spacing_message(name, spacings[name], usual, "the median is")
        for name, is_far in zip(spacings, _far_from(every, usual), strict=True)
        if is_far
    ]


def doubtful_spacing(
    name: str, spacing: Sequence[float], usual: Sequence[float] | np.ndarray, of_others: str
) -> str:
    """Return a sentence where the spacing of a case (mm; z, y, x) is far from the usual one, which
    stands after the words `of_others`; empty where it is not.
    """
    is_far = _far_from(np.array(spacing), usual)
    return _spacing_message(name, spacing, usual, of_others) if is_far else ""


def _far_from(spacings: np.ndarray, usual: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return bool (...): whether spacings (..., 3) lie far from the usual one along an axis."""
    ratios = spacings / np.asarray(usual)
    return ((ratios > _OUTLIER) | (ratios < 1 / _OUTLIER)).any(axis=-1)


def _spacing_message(
    name: str, spacing: Sequence[float], usual: Sequence[float] | np.ndarray, of_others: str
) -> str:
    return (
        f"Case {name} has a spacing of {_shown(spacing)} mm (z, y, x), {of_others} "
        f"{_shown(usual)} mm. Is its header right?"
    )


def check_planar(planar: Mapping[str, bool]) -> None:
    """Refuse 2D files among volumes, or the reverse: {case: whether it is a 2D file}.

    Raises:
        ImageError: Cases of both kinds, and those of which there are fewer.
    """
    if len(set(planar.values())) < 2:
        return
    flat = [name for name, is_flat in planar.items() if is_flat]
    solid = [name for name, is_flat in planar.items() if not is_flat]
    few, kinds = min(
        (flat, "2D images, the others volumes"),
        (solid, "volumes, the others 2D images"),
        key=lambda pair: len(pair[0]),
    )
    raise ImageError(
        f"{len(few)} of {len(planar)} cases are {kinds}: {listed(few)}. A dataset holds one kind: "
        "correct or remove these files."
    )


def _shown(spacing: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in spacing)


def check_finite(voxels: np.ndarray, path: Path) -> None:
    """Raise ImageError if a voxel of an image is NaN or infinite."""
    if voxels.dtype.kind != "f" or np.isfinite(voxels.sum()):
        return
    if lost := int(np.count_nonzero(~np.isfinite(voxels))):
        raise ImageError(
            f"{path} holds {lost} voxels that are NaN or infinite. Replace them with a number, for "
            "example the background intensity."
        )
