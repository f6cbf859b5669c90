"""Every file format of SimpleITK that holds medical images or pictures; the header of each is
checked, against its file and against itself, before ITK sees it.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from isal import igzip

from nnunet_builtin.computing.itk import quiet_itk
from nnunet_builtin.formats import gipl, metaimage, nifti, nrrd, pictures, tiff
from nnunet_builtin.formats.voxels import Layout, check_spacing, opened, refused
from nnunet_core.data.images import (
    SLICE_SPACING_2D,
    Geometry,
    Header,
    Image,
    check_finite,
    ending_of,
)
from nnunet_core.errors import ImageError
from nnunet_core.runtime.files import atomic_path
from nnunet_core.runtime.memory import check_fits

if TYPE_CHECKING:
    from collections.abc import Callable

#: {ending: what reads the header, and returns where the voxels are if it knows}.
_EXAMINERS: dict[str, Callable[[Path], Layout | None]] = {
    **{
        ending: module.examine
        for module in (nifti, nrrd, metaimage, gipl, tiff)
        for ending in module.ENDINGS
    },
    **dict.fromkeys(pictures.BMP, pictures.examine_bmp),
    **dict.fromkeys(pictures.JPEG, pictures.examine_jpeg),
    **dict.fromkeys(pictures.PNG, pictures.examine_png),
}
_READERS = {
    **dict.fromkeys(nifti.ENDINGS, "NiftiImageIO"),
    **dict.fromkeys(nrrd.ENDINGS, "NrrdImageIO"),
    **dict.fromkeys(metaimage.ENDINGS, "MetaImageIO"),
    **dict.fromkeys(gipl.ENDINGS, "GiplImageIO"),
    **dict.fromkeys(tiff.ENDINGS, "TIFFImageIO"),
    **dict.fromkeys(pictures.BMP, "BMPImageIO"),
    **dict.fromkeys(pictures.JPEG, "JPEGImageIO"),
    **dict.fromkeys(pictures.PNG, "PNGImageIO"),
}
#: Headers whose voxels may lie in a file beside them, and what holds both.
_WHOLE = {nrrd.DETACHED: ".nrrd", metaimage.DETACHED: ".mha"}
_DETACHED = tuple(_WHOLE)
_PICTURES = (".png", ".bmp")
_LOSSY = (".jpg", ".jpeg")
_GZIP_LEVEL = 2  # of 0..3
_RIGHT_ANGLES = 1e-3  # of products of direction cosines


class SimpleItkFormat:
    """Reads and writes every file format of SimpleITK; 2D images become volumes of one slice, RGB
    becomes channels.
    """

    def __init__(self, endings: tuple[str, ...] = (".nii.gz",)) -> None:
        self.endings = endings

    def header(self, path: Path) -> Header:
        """Read size and geometry of one file without its voxels.

        Raises:
            ImageError: As `read`.
        """
        examine(path)
        reader = _reader(path)
        shape = (
            (*reader.GetSize()[:3], 1)[:3] if reader.GetDimension() == 2 else reader.GetSize()[:3]
        )
        spacing = (*reader.GetSpacing(), SLICE_SPACING_2D)[:3]
        channels = 1 if _is_grey_bmp(path) else reader.GetNumberOfComponents()
        return Header(tuple(reversed(shape)), tuple(reversed(spacing)), channels)

    def read(self, path: Path) -> Image:
        """Read one file.

        Raises:
            ImageError: The file is missing, unreadable, damaged, truncated, contradicts its own
                header, has no spacing, sheared axes or neither two nor three dimensions, would fill
                the memory, or holds voxels that are NaN or infinite.
        """
        layout = examine(path)
        reader = _reader(path)
        voxels = layout.read() if layout is not None else None
        if voxels is not None and voxels.size == math.prod(reader.GetSize()):
            result = _image(voxels.reshape(reader.GetSize()[::-1]), reader, path)
        else:
            image = _execute(reader, path)
            result = _image(sitk.GetArrayFromImage(image), image, path)
        if layout is not None and layout.forms:
            geometry = nifti.with_forms(result.geometry, layout.forms, path)
            return Image(result.array, geometry)
        if _is_grey_bmp(path):
            return Image(result.array[:1], result.geometry)
        return result

    def parts(self, path: Path) -> tuple[Path, ...]:
        """Return the file with the voxels of a `.mhd` or `.nhdr` (DetachedFormat). Raises
        ImageError.
        """
        if not str(path).lower().endswith(_DETACHED):
            return ()
        layout = examine(path)
        return () if layout is None or layout.path == path else (layout.path,)

    def write(self, path: Path, array: np.ndarray, geometry: Geometry) -> None:
        """Write an array (Z, Y, X) atomically, with the geometry of the image it belongs to.

        Raises:
            StorageError: The disk is full or the folder cannot be written.
            ImageError: The format cannot hold the array.
        """
        if array.shape != geometry.shape:
            raise ImageError(
                f"{path}: the array has shape {array.shape}, its geometry {geometry.shape}."
            )
        ending = ending_of(path.name, _EXAMINERS) or path.suffix.lower()
        ending = _WHOLE.get(ending, ending)  # header and voxels in one file, which is atomic
        _check_holds(path, ending, geometry)
        if ending in _LOSSY:
            raise ImageError(
                f"{path} cannot be written: {ending} files lose exact values. Use .png, .tif or "
                ".nii.gz."
            )
        if ending in _PICTURES and array.size and array.min() >= 0 and array.max() <= 255:
            array = array.astype(np.uint8)
        image = _from_array(array, geometry)
        with atomic_path(path) as temporary:
            named = temporary.with_name(temporary.name + ending)
            # a link: another file in the place of `temporary` would not be marked as being written
            with contextlib.suppress(OSError):
                named.symlink_to(temporary.name)
            try:
                _write(image, named, geometry.forms)
                if not named.is_symlink():
                    named.replace(temporary)
            except RuntimeError as error:
                if not _writable(temporary):
                    raise OSError(28, "No space left on device") from error
                raise ImageError(
                    f"{path} cannot be written: {ending} files cannot hold {array.dtype} values "
                    f"from {array.min()} to {array.max()}. Use another ending, for example .nii.gz "
                    "or .tif."
                ) from error
            finally:
                named.unlink(missing_ok=True)

    def from_object(self, value: object, name: str) -> Image | None:
        """Return a SimpleITK image as ours; None for anything else (TakesObjects).

        Raises:
            ImageError: It has sheared axes, neither two nor three dimensions, or voxels that are
                NaN or infinite.
        """
        if not isinstance(value, sitk.Image):
            return None
        path = Path(name)
        if value.GetDimension() not in (2, 3):
            raise ImageError(f"{name} has {value.GetDimension()} dimensions; images are 2D or 3D.")
        _check_axes(path, value)
        return _image(sitk.GetArrayFromImage(value), value, path)

    def to_object(self, array: np.ndarray, geometry: Geometry) -> sitk.Image:
        """Return an array (Z, Y, X) as a SimpleITK image (TakesObjects)."""
        return _from_array(array, geometry)


def _check_holds(path: Path, ending: str, geometry: Geometry) -> None:
    """Raise ImageError where ITK would leave out slices, or directions, without a word."""
    if ending in _PICTURES and geometry.shape[0] > 1:
        raise ImageError(
            f"{path} cannot be written: {ending} files hold one slice, the array has "
            f"{geometry.shape[0]}. Use .nii.gz or .tif."
        )
    if ending in gipl.ENDINGS and not np.allclose(geometry.direction, np.eye(3).ravel()):
        raise ImageError(
            f"{path} cannot be written: {ending} files hold no directions, and those of the image "
            f"are {geometry.direction}. Use .nii.gz, .nrrd or .mha."
        )


def examine(path: Path) -> Layout | None:
    """Check the header of a file before ITK sees it; return where its voxels are, if that is known.

    Raises:
        ImageError: See `SimpleItkFormat.read`.
    """
    ending = ending_of(path.name, _EXAMINERS)
    if ending.endswith(".gz") and not path.name.endswith((ending, ".NII.GZ")):
        raise refused(path, f"readers want its ending in small letters: rename it to *{ending}")
    find = _EXAMINERS.get(ending)
    if find is not None:
        return find(path)
    with opened(path):
        return None


def _is_grey_bmp(path: Path) -> bool:
    """Return whether a file is a BMP of grey values; its reader gives three equal channels."""
    return bool(ending_of(path.name, pictures.BMP)) and pictures.has_grey_palette(path)


def _reader(path: Path) -> sitk.ImageFileReader:
    """Return a reader that has read the header of an image that fits into the memory."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    if name := _READERS.get(ending_of(path.name, _READERS)):
        reader.SetImageIO(name)  # ITK itself looks for small letters, and at other formats
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    if reader.GetDimension() not in (2, 3):
        raise ImageError(
            f"The image {path} has {reader.GetDimension()} dimensions; cases are 2D or 3D, one "
            "file per channel. Convert 4D files with: nnunet dataset convert"
        )
    _check_axes(path, reader)
    check_fits(
        path,
        math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * _bytes(reader.GetPixelID()),
    )
    return reader


def _check_axes(path: Path, reader: sitk.Image | sitk.ImageFileReader) -> None:
    """Raise ImageError unless axes are at right angles, with a spacing and an origin."""
    check_spacing(path, reader.GetSpacing())
    matrix = np.reshape(reader.GetDirection(), (reader.GetDimension(), -1))
    if not np.all(np.isfinite([*reader.GetOrigin(), *matrix.ravel()])):
        raise refused(path, "its origin or directions hold numbers that are NaN or infinite")
    if np.abs(matrix.T @ matrix - np.eye(len(matrix))).max() > _RIGHT_ANGLES:
        raise _sheared(path)


def _sheared(path: Path) -> ImageError:
    return ImageError(
        f"The image {path} has sheared axes: they are not at right angles, which a grid of voxels "
        "cannot express. Resample it to a regular grid, or correct the header if only that is "
        "wrong."
    )


def _execute(reader: sitk.ImageFileReader, path: Path) -> sitk.Image:
    try:
        with quiet_itk():
            return reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _bytes(pixel: int) -> int:
    """Return the bytes of one value; the voxels of integer types without a width in their name have
    8 bits.
    """
    digits = "".join(
        character for character in sitk.GetPixelIDValueAsString(pixel) if character.isdigit()
    )
    return int(digits or 8) // 8


def _unreadable(path: Path, error: Exception) -> ImageError:
    if "orthonormal" in str(error):
        return _sheared(path)
    reason = _reason(error).rstrip(".")
    return ImageError(f"The image {path} cannot be read: {reason}. Replace it with an intact copy.")


def _write(image: sitk.Image, path: Path, forms: tuple[float, ...]) -> None:
    """Write a new file; .nii.gz is compressed by a library that takes a fraction of ITK's time."""
    # The ending of `path` is in small letters: ITK chooses by it whether and how it compresses.
    plain = path.with_name(path.name.removesuffix(".gz")) if path.name.endswith(".nii.gz") else path
    try:
        with quiet_itk():
            sitk.WriteImage(image, str(plain), useCompression=True)
        if forms and plain.name.endswith(".nii"):
            nifti.write_forms(plain, forms)
        if plain != path:
            with plain.open("rb") as source, path.open("wb") as file:
                target = igzip.GzipFile(
                    "", "wb", _GZIP_LEVEL, file, mtime=0
                )  # equal images make equal files
                with target:
                    shutil.copyfileobj(source, target, 1 << 20)
    finally:
        if plain != path:
            plain.unlink(missing_ok=True)


def _writable(path: Path) -> bool:
    """Return whether the disk takes another 64 KiB: ITK reports a full disk only as 'failed to
    write'.
    """
    try:
        with path.open("wb", buffering=0) as file:
            return file.write(b"\0" * 65536) == 65536
    except OSError:
        return False


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[-1] if lines else "unknown reason").removeprefix("sitk::ERROR: ")
    if reason.startswith(("Unable to determine ImageIO", "ITK ERROR")):
        return "it is empty, truncated, damaged or of another format than its ending says"
    return reason


def _image(array: np.ndarray, image: sitk.Image | sitk.ImageFileReader, path: Path) -> Image:
    """Return an array (Y, X) or (Z, Y, X), and perhaps channels last, with the geometry of its
    file.
    """
    dimensions = image.GetDimension()
    array = array[None] if array.ndim == dimensions else np.moveaxis(array, -1, 0)
    spacing, origin, direction = image.GetSpacing(), image.GetOrigin(), image.GetDirection()
    if dimensions == 2:
        array = array[:, None]
        spacing, origin = (*spacing, SLICE_SPACING_2D), (*origin, 0.0)
        direction = (*direction[:2], 0.0, *direction[2:], 0.0, 0.0, 0.0, 1.0)
    shape = (int(array.shape[1]), int(array.shape[2]), int(array.shape[3]))
    geometry = Geometry(shape, (spacing[2], spacing[1], spacing[0]), origin, direction)
    check_finite(array, path)
    return Image(array, geometry)


def _from_array(array: np.ndarray, geometry: Geometry) -> sitk.Image:
    planar = geometry.shape[0] == 1 and geometry.spacing[0] == SLICE_SPACING_2D
    image = sitk.GetImageFromArray(array[0] if planar else array)
    count = 2 if planar else 3
    matrix = np.reshape(geometry.direction, (3, 3))[:count, :count]
    image.SetSpacing(geometry.spacing[::-1][:count])
    image.SetOrigin(geometry.origin[:count])
    image.SetDirection([float(v) for v in matrix.ravel()])
    return image
