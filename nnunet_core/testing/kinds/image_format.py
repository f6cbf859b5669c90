"""Checks of image formats: round trips of voxels and geometry, and what they refuse."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_core.data.images import SLICE_SPACING_2D, Geometry, Image, ImageFormat
from nnunet_core.errors import ImageError, NnunetError
from nnunet_core.testing.check import Subject, check, require, skip
from nnunet_core.testing.files import contents

_SHAPE, _SPACING, _ORIGIN = (5, 7, 6), (2.5, 0.8, 1.25), (-31.5, 12.25, 4.0)
_NOWHERE = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


@dataclass(frozen=True)
class _Written:
    """A file that a format wrote: where it is, and what it was to hold."""

    path: Path
    array: np.ndarray
    geometry: Geometry


@check("image_format")
def format_knows_its_endings(subject: Subject) -> None:
    """Endings begin with a dot and are in small letters, and are those of the setting `endings`, by
    which the format is found.
    """
    endings = subject.build().endings
    require(endings, "It has no ending.")
    for ending in endings:
        plain = ending.startswith(".") and ending == ending.lower()
        require(plain, f"The ending {ending!r} must be a dot and small letters: '.nii.gz'.")
    registered = subject.component.component.settings.get("endings")
    require(
        registered is None or list(registered) == list(endings),
        f"The plugin registers the endings {registered}; the format has {list(endings)}.",
    )


@check("image_format")
def format_round_trip_keeps_voxels(subject: Subject) -> None:
    """Label maps and images are read as they were written, (1, Z, Y, X), in each of its endings."""
    image_format = subject.build()
    for written in _files(subject, image_format):
        image = image_format.read(written.path)
        require(
            isinstance(image, Image) and image.array.shape == (1, *written.array.shape),
            f"{written.path.name}: read {getattr(image.array, 'shape', image)}; written was one "
            f"channel of {written.array.shape}.",
        )
        require(
            np.array_equal(image.array[0], written.array),
            f"{written.path.name}: other voxels are read than the {written.array.dtype} that were "
            "written.",
        )


@check("image_format")
def format_round_trip_keeps_geometry_in_8_orientations(subject: Subject) -> None:
    """Spacing, origin and direction are read as they were written, whichever way the axes run. A
    format that holds no place at all gives every file the same.
    """
    image_format = subject.build()
    pairs = [
        (written, image_format.read(written.path).geometry)
        for written in _files(subject, image_format)
        if written.geometry.spacing[0] != SLICE_SPACING_2D
    ]
    if not pairs:
        skip("It writes pictures only.")
    if all((found.origin, found.direction) == _NOWHERE for _, found in pairs):
        skip("Its files hold no place in space: every one is at the origin, along the axes.")
    for written, found in pairs:
        told = written.geometry.contrast(found, "geometry written", "geometry read")
        require(not told, f"{written.path.name}: {told}.")


@check("image_format")
def format_header_agrees_with_the_image(subject: Subject) -> None:
    """The header says the shape, the spacing and the channels that reading finds."""
    image_format = subject.build()
    paths = [written.path for written in _files(subject, image_format, refused=False)]
    if subject.example is not None and subject.example.exists():
        paths.append(subject.example)
    if not paths:
        skip("It writes no file of its own, and no --example is given.")
    for path in paths:
        header, image = image_format.header(path), image_format.read(path)
        found = (image.geometry.shape, image.geometry.spacing, len(image.array))
        same = np.allclose(header.spacing, found[1]) and (header.shape, header.channels) == (
            found[0],
            found[2],
        )
        require(same, f"{path.name}: the header says {header}; read are {found}.")


@check("image_format")
def format_refuses_damaged_files(subject: Subject) -> None:
    """A missing, empty, cut or foreign file is an ImageError, of `read` and of `header`."""
    image_format = subject.build()
    ending = image_format.endings[0]
    bad = {"missing": None, "empty": b"", "foreign": b"this is no image\n" * 40}
    for written in itertools.islice(_files(subject, image_format, refused=False), 1):
        whole = written.path.read_bytes() if written.path.is_file() else b""
        bad["cut"] = whole[: len(whole) // 2]
    for name, content in bad.items():
        path = subject.folder / f"{name}{ending}"
        if content is not None:
            path.write_bytes(content)
        for what in (image_format.read, image_format.header):
            if name == "cut" and what == image_format.header:
                continue  # a header may be whole in a file that is cut
            try:
                what(path)
            except ImageError:
                continue
            except Exception as error:
                raise AssertionError(
                    f"{what.__name__} of a {name} file raises {type(error).__name__}: {error}; it "
                    "must be an ImageError."
                ) from error
            require(False, f"{what.__name__} of a {name} file raises nothing; it must ImageError.")


@check("image_format")
def format_writes_whole_files_or_none(subject: Subject) -> None:
    """Writing leaves the file alone in its folder; where it is refused, what was there stays as it
    was.
    """
    image_format = subject.build()
    for written in itertools.islice(_files(subject, image_format), 1):
        array = written.array.copy()
        image_format.write(written.path, array, written.geometry)
        require(np.array_equal(array, written.array), "write changes the array that it is given.")
        before = contents(written.path.parent)
        hidden = [name for name in before if name.startswith(".") or name.endswith(".tmp")]
        require(not hidden, f"write leaves {', '.join(hidden)} behind.")
        wrong = np.zeros((2, *written.array.shape[1:]), np.uint8)
        try:
            image_format.write(written.path, wrong, Geometry((3, *written.array.shape[1:])))
        except NnunetError:
            pass
        except Exception as error:
            raise AssertionError(
                f"write of an array and a geometry of other shapes raises {type(error).__name__}: "
                f"{error}; it must be an ImageError."
            ) from error
        else:
            require(False, "write takes an array of another shape than its geometry.")
        require(contents(written.path.parent) == before, "A refused write changes what was there.")


def _files(subject: Subject, image_format: ImageFormat, refused: bool = True) -> Iterator[_Written]:
    """Yield files that a format writes, of each of its endings; in volumes, 8 orientations.

    Args:
        subject: Has the folder.
        image_format: Writes.
        refused: Whether to skip the check where it writes none.
    """
    none, why = True, ""
    for ending in image_format.endings:
        for number, (array, geometry) in enumerate(_images()):
            path = subject.folder / f"{ending.strip('.')}_{number}" / f"case_0000{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                image_format.write(path, array, geometry)
            except ImageError as error:
                why = str(error)
                continue
            none = False
            yield _Written(path, array, geometry)
    if none and refused:
        skip(f"It writes no file: {why}")


def _images() -> Iterator[tuple[np.ndarray, Geometry]]:
    """Yield label maps in 8 orientations; then other types, and a picture."""
    random = np.random.default_rng(0)
    for flips in itertools.product((1.0, -1.0), repeat=3):
        direction = tuple(np.diag(flips).ravel().tolist())
        geometry = Geometry(_SHAPE, _SPACING, _ORIGIN, direction)
        yield random.integers(0, 3, _SHAPE).astype(np.uint8), geometry
    turned = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # x, y, z run along y, z, x
    geometry = Geometry(_SHAPE, _SPACING, _ORIGIN, turned)
    yield random.integers(0, 700, _SHAPE).astype(np.uint16), geometry
    yield random.normal(100, 30, _SHAPE).astype(np.float32), geometry
    flat = Geometry((1, 7, 6), (SLICE_SPACING_2D, 1.0, 1.0))
    yield random.integers(0, 3, flat.shape).astype(np.uint8), flat
