"""Volumes inside a page: cropped to what there is to see, made small, and as a picture for browsers
without WebGL.
"""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_builtin.pages.elements import Volume

#: Colours of labels 1, 2, ..., also of overlay pictures: told apart on grey by people with
#: colour-blindness, too.
COLOURS = (
    "#ff9f1c",
    "#3fb6ff",
    "#f25fb0",
    "#2fd08a",
    "#ffe66d",
    "#b28dff",
    "#ff5a4f",
    "#7ff0e8",
    "#c08457",
    "#a8d93f",
)
#: Voxels of a volume on a page: about half a megabyte.
MOST_VOXELS = 600_000
#: Of the image around its labels, in mm.
_MARGIN_MM = 20.0
_PICTURE_SIDE = 260


def encoded(volume: Volume) -> dict[str, Any]:
    """Return a volume as JSON values: NIfTI files and a PNG as base64, labels with colours, and
    where the viewer opens, in mm as NIfTI has them.
    """
    values = sorted(volume.labels)
    maps = {name: _numbered(array, values) for name, array in volume.maps.items()}
    box = _box(maps.values(), volume)
    steps = _steps([edge.stop - edge.start for edge in box], volume.spacing)
    image = _averaged(_windowed(volume.image)[box], steps)
    small = {name: _sampled(array[box], steps) for name, array in maps.items()}
    z, y, x = (mm * step for mm, step in zip(volume.spacing, steps, strict=True))
    place = ((x, y, z), volume.direction)
    return {
        "name": volume.name,
        "caption": volume.caption,
        "image": _nifti(image, *place),
        "maps": [{"name": name, "nifti": _nifti(array, *place)} for name, array in small.items()],
        "labels": [
            {"name": volume.labels[value], "colour": COLOURS[number % len(COLOURS)]}
            for number, value in enumerate(values)
        ],
        "centre": _centre(small, image, *place),
        "picture": _picture(image, small, (z, y, x)),
    }


def _numbered(array: np.ndarray, values: list[int]) -> np.ndarray:
    """Return a label map with 1, 2, ... for these values and 0 for all others."""
    found = np.zeros(array.shape, np.uint8)
    for number, value in enumerate(values[:255], start=1):
        found[array == value] = number
    return found


def _box(maps: Any, volume: Volume) -> tuple[slice, ...]:
    """Return what is shown: all of a small volume, or what is around the labels of a large one."""
    shape = volume.image.shape
    everything = tuple(slice(0, size) for size in shape)
    if volume.image.size <= MOST_VOXELS:
        return everything
    filled = np.any([array > 0 for array in maps], axis=0) if volume.maps else np.array([])
    if not filled.any():
        return everything
    found = []
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(filled.any(axis=others))
        margin = round(_MARGIN_MM / volume.spacing[axis])
        found.append(slice(max(0, places[0] - margin), min(size, places[-1] + margin + 1)))
    return tuple(found)


def _steps(shape: list[int], spacing: tuple[float, float, float]) -> list[int]:
    """Return how many voxels become one along each axis: the finest axis is coarsened first."""
    steps = [1, 1, 1]
    while (
        np.prod([-(-size // step) for size, step in zip(shape, steps, strict=True)]) > MOST_VOXELS
    ):
        wide = [axis for axis in range(3) if shape[axis] > steps[axis]]
        steps[min(wide, key=lambda axis: spacing[axis] * steps[axis])] += 1
    return steps


def _windowed(image: np.ndarray) -> np.ndarray:
    """Return an image as 8 bits, dark below and bright above all but half a percent each."""
    finite = np.nan_to_num(np.asarray(image, np.float32))
    low, high = np.percentile(finite, (0.5, 99.5))
    scaled = (finite - low) / max(float(high - low), 1e-6)
    return np.clip(scaled * 255, 0, 255).astype(np.uint8)


def _averaged(image: np.ndarray, steps: list[int]) -> np.ndarray:
    """Return means of blocks; voxels that fill no whole block are left out."""
    found = image.astype(np.float32)
    for axis, step in enumerate(steps):
        whole = found.shape[axis] // step
        cut = np.take(found, range(whole * step), axis)
        shape = (*cut.shape[:axis], whole, step, *cut.shape[axis + 1 :])
        found = cut.reshape(shape).mean(axis=axis + 1)
    return np.round(found).astype(np.uint8)


def _sampled(array: np.ndarray, steps: list[int]) -> np.ndarray:
    """Return the voxel in the middle of each block."""
    parts = []
    for size, step in zip(array.shape, steps, strict=True):
        whole = size // step
        parts.append(slice(step // 2, whole * step, step))
    return array[tuple(parts)]


def _centre(
    maps: dict[str, np.ndarray], image: np.ndarray, spacing: tuple[float, ...], direction: Any
) -> list[float]:
    """Return the point, RAS in mm, where most of the labels meet; the middle without any."""
    first = next(iter(maps.values()), image)
    voxel = [size // 2 for size in first.shape]
    if first.any() and maps:
        areas = [(first > 0).sum(axis=tuple(o for o in range(3) if o != a)) for a in range(3)]
        largest = [np.flatnonzero(area == area.max()) for area in areas]
        voxel = [int(places[len(places) // 2]) for places in largest]
    matrix = np.eye(3) if direction is None else np.reshape(np.asarray(direction, float), (3, 3))
    x, y, z = matrix @ (np.array(voxel[::-1]) * np.array(spacing))
    return [-float(x), -float(y), float(z)]  # ITK's axes are LPS


def _nifti(array: np.ndarray, spacing: tuple[float, ...], direction: Any) -> str:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection([float(value) for value in direction])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        sitk.WriteImage(image, str(path), useCompression=True)
        return base64.b64encode(path.read_bytes()).decode()


def _picture(
    image: np.ndarray, maps: dict[str, np.ndarray], spacing: tuple[float, float, float]
) -> str:
    """Return a PNG of the slice along the coarsest axis that shows most labels: the image, and each
    label map over it.
    """
    from PIL import Image

    axis = int(np.argmax(spacing))
    shown = np.sum([array > 0 for array in maps.values()], axis=0) if maps else image
    others = tuple(other for other in range(3) if other != axis)
    index = int(np.argmax(shown.sum(axis=others)))
    height, width = (image.shape[other] * spacing[other] for other in others)
    scale = _PICTURE_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = np.repeat(np.take(image, index, axis)[..., None], 3, axis=2)
    tiles = [grey, *(_painted(grey, np.take(array, index, axis)) for array in maps.values())]
    sheet = Image.new("RGB", (len(tiles) * (size[0] + 4) - 4, size[1]))
    for number, tile in enumerate(tiles):
        upright = tile if axis == 0 else tile[::-1]
        small = Image.fromarray(np.ascontiguousarray(upright)).resize(size)
        sheet.paste(small, (number * (size[0] + 4), 0))
    text = io.BytesIO()
    sheet.save(text, "PNG")
    return base64.b64encode(text.getvalue()).decode()


def _painted(grey: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Return a slice with its labels in colour."""
    colours = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
    table = np.array([(0, 0, 0)] + [colours[i % len(colours)] for i in range(255)], np.float32)
    mixed = 0.45 * grey + 0.55 * table[plane]
    return np.where((plane > 0)[..., None], mixed, grey).astype(np.uint8)
