"""Headers of NIfTI files: where the voxels are, and whether what they say makes sense."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from nnunet_builtin.formats.voxels import Layout, check_spacing, head, is_compressed, refused
from nnunet_core.data.images import Geometry
from nnunet_core.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = (".nii", ".nii.gz")
_LARGEST_OFFSET = 1 << 26
_KINDS = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_COLOURS = {128: 24, 2304: 32}  # RGB and RGBA: bits
_NOT_READ = {
    1: "single bits",
    32: "complex numbers",
    1536: "128-bit numbers",
    1792: "complex numbers",
    2048: "complex numbers",
}
_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # units of length
_VOXELS_APART = 0.1
_FORMS = ("qform", "sform")
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def _fields(size: int, **fields: tuple[str, int]) -> np.dtype:
    formats, offsets = zip(*fields.values(), strict=True)
    table = {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size}
    return np.dtype(table)  # type: ignore[call-overload]


#: {sizeof_hdr: fields}, of NIfTI-1 and NIfTI-2. `place` and what follows is what says where the
#: voxels lie: b, c, d and offsets of the qform, then the rows of the sform.
_HEADERS = {
    348: _fields(
        348, dim=("8i2", 40), kind=("i2", 70), bits=("i2", 72), pixdim=("8f4", 76),
        offset=("f4", 108), scale=("2f4", 112), units=("u1", 123), codes=("2i2", 252),
        place=("18f4", 256), magic=("S3", 344),
    ),
    540: _fields(
        540, magic=("S3", 4), kind=("i2", 12), bits=("i2", 14), dim=("8i8", 16),
        pixdim=("8f8", 104), offset=("i8", 168), scale=("2f8", 176), codes=("2i4", 344),
        place=("18f8", 352), units=("i4", 500),
    ),
}  # fmt: skip
_MAGIC = {348: b"n+1", 540: b"n+2"}


def examine(path: Path) -> Layout:
    """Read the header of a `.nii` or `.nii.gz`.

    Raises:
        ImageError: The file is no NIfTI file, or its header contradicts itself or the file's
            length, has no spacing, or holds numbers that are NaN.
    """
    fields, size, order = _header(head(path, max(_HEADERS)), path)
    count = int(fields["dim"][0])
    if not 1 <= count <= 7 or min(fields["dim"][1 : min(count, 3) + 1]) < 1:
        raise refused(path, f"its header declares the dimensions {fields['dim'].tolist()}")
    check_spacing(path, fields["pixdim"][1 : min(count, 3) + 1].tolist())
    voxels = math.prod(max(int(length), 1) for length in fields["dim"][1 : count + 1])
    compressed = is_compressed(path)
    slope, intercept = fields["scale"].tolist()
    kind = _kind(fields, path)
    layout = Layout(
        path,
        _offset(fields, size, path),
        voxels * int(fields["bits"]) // 8,
        None if kind is None else np.dtype(order + kind),
        compression="gzip" if compressed else "",
        whole=compressed,
        plain=slope == 0 or (slope == 1 and intercept == 0),
        forms=_forms(fields, path),
    )
    layout.check()
    return layout


def _header(start: bytes, path: Path) -> tuple[np.void, int, str]:
    """Return the fields of a NIfTI-1 or NIfTI-2 header of either byte order, its length and
    order.
    """
    # Not nibabel: some broken headers are mended by nibabel, which must be an error here.
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for order in orders:
        size = int(np.frombuffer(start, order + "i4", 1)[0]) if len(start) >= 4 else 0
        if size in _HEADERS and len(start) >= size:
            fields = np.frombuffer(start, _HEADERS[size].newbyteorder(order), 1)[0]
            if fields["magic"] == b"ni1":
                raise refused(path, "its voxels are in another file (.img): save it as .nii.gz")
            if fields["magic"] == _MAGIC[size]:
                return fields, size, order
    raise ImageError(
        f"The image {path} cannot be read: it has no NIfTI header; it is empty, truncated, damaged "
        "or of another format."
    )


def _kind(fields: np.void, path: Path) -> str | None:
    """Return the type of a voxel; None for colours."""
    code, bits = int(fields["kind"]), int(fields["bits"])
    if code in _NOT_READ:
        raise refused(
            path,
            f"its voxels are {_NOT_READ[code]}. Save one real number for each, for example the "
            "magnitude as float32",
        )
    kind = _KINDS.get(code)
    expected = _COLOURS.get(code) if kind is None else 8 * int(kind[1])
    if expected is None:
        raise refused(path, f"its header declares voxels of the unknown type {code}")
    if bits != expected:
        raise refused(
            path, f"its header contradicts itself: type {code} has {expected} bits, not {bits}"
        )
    return kind


def _offset(fields: np.void, size: int, path: Path) -> int:
    offset, first = float(fields["offset"]), size + 4
    if offset == 0:
        return first
    if not (first <= offset <= _LARGEST_OFFSET and offset.is_integer()):
        raise refused(path, f"its header declares voxels from byte {offset:g} on")
    return int(offset)


def _forms(fields: np.void, path: Path) -> tuple[float, ...]:
    """Return the numbers of both forms, in mm, where they contradict each other, else nothing.

    Raises:
        ImageError: A form that counts holds numbers that are NaN or infinite, or the sform has no
            volume.
    """
    codes, place = fields["codes"].tolist(), fields["place"].astype(float)
    for name, code, values in zip(_FORMS, codes, (place[:6], place[6:]), strict=False):
        if code > 0 and not np.all(np.isfinite(values)):
            raise refused(path, f"its {name} holds numbers that are NaN or infinite")
    if codes[1] > 0 and np.linalg.det(place[6:].reshape(3, 4)[:, :3]) == 0:
        raise refused(path, f"its sform {place[6:].tolist()} has axes that lie in one plane")
    if min(codes) <= 0:
        return ()
    unit = _MM.get(int(fields["units"]) & 7, 1.0)
    place[3:] *= unit
    pixdim = fields["pixdim"][:4].astype(float)
    pixdim[1:] *= unit
    forms = (*map(float, codes), *pixdim.tolist(), *place.tolist())
    return forms if _apart(forms, fields["dim"][1:4].tolist()) > _VOXELS_APART else ()


def _apart(forms: tuple[float, ...], shape: list[int]) -> float:
    """Return how far the corners of both forms lie apart, voxels."""
    x, y, z = (max(int(length), 1) for length in shape)
    first, second = (_geometry(affine, (z, y, x)) for affine in affines(forms))
    return first.displacement(second)


def affines(forms: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the (3, 4) matrices of qform and sform, voxels to mm (right, anterior, superior)."""
    handed, *spacing = forms[2:6]
    b, c, d, *offset = forms[6:12]
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    rotation[:, 2] *= -1 if handed < 0 else 1
    return np.column_stack([rotation * spacing, offset]), np.reshape(forms[12:], (3, 4))


def _geometry(affine: np.ndarray, shape: tuple[int, int, int]) -> Geometry:
    matrix = _TO_LPS @ affine[:, :3]
    spacing = np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    x, y, z = (float(value) for value in spacing)
    origin = tuple(float(value) for value in _TO_LPS @ affine[:, 3])
    direction = tuple(float(value) for value in (matrix / spacing).ravel())
    return Geometry(shape, (z, y, x), (origin[0], origin[1], origin[2]), direction)


def with_forms(geometry: Geometry, forms: tuple[float, ...], path: Path) -> Geometry:
    """Return what was read of a header whose forms contradict each other with both of them, and
    with a note that says so.
    """
    places = [_geometry(affine, geometry.shape) for affine in affines(forms)]
    far = [geometry.displacement(place) for place in places]
    used = 0 if far[0] <= far[1] else 1
    told = [
        f"{name} (code {code:g}): origin {_shown(place.origin)}, spacing "
        f"{_shown(place.spacing[::-1])}"
        for name, code, place in zip(_FORMS, forms, places, strict=False)
    ]
    note = (
        f"{path}: the two forms of its header lie {places[0].displacement(places[1]):.3g} voxels "
        f"apart; {'; '.join(told)}, mm (left, posterior, superior). The {_FORMS[used]} is used, "
        "predictions carry both. Correct the wrong one."
    )
    return replace(geometry, forms=forms, elsewhere=places[1 - used], notes=(note,))


def _shown(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def write_forms(path: Path, forms: tuple[float, ...]) -> None:
    """Put both forms of an image into the header of a NIfTI-1 file that was written with one."""
    table = _HEADERS[348]  # of the machine's byte order, as ITK writes it
    content = np.memmap(path, np.uint8, "r+", shape=(348,))
    fields = content.view(table)
    fields["codes"] = forms[:2]
    fields["pixdim"][0, :4] = forms[2:6]
    fields["place"] = forms[6:]
    content.flush()
