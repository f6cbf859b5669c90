"""The voxels of NIfTI files, with checksum, size and NaN checked on the way.

The reader of ITK fills what is missing with zeros, ignores checksums and turns NaN to 0, all
without a word.
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

import numpy as np
from isal import igzip
from isal.isal_zlib import IsalError

from nnunet_core.data.images import check_finite
from nnunet_core.errors import ImageError
from nnunet_core.runtime.memory import check_fits

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = (".nii", ".nii.gz")
#: What a damaged gzip stream raises.
DAMAGE = (OSError, EOFError, zlib.error, cast("type[Exception]", IsalError))
_PADDING = 1 << 20  # bytes that may follow the voxels
_LARGEST_OFFSET = 1 << 26
_HEADERS = {348: 352, 540: 544}  # sizeof_hdr of NIfTI-1 and NIfTI-2: bytes before the voxels
_LARGEST_HEADER = max(_HEADERS.values())
_KINDS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
_NATIVE = "<" if sys.byteorder == "little" else ">"


@dataclass(frozen=True)
class _Header:
    """What reading needs.

    Attributes:
        offset: Where the voxels begin, bytes.
        size: The whole uncompressed file, bytes.
        dtype: Of the voxels, or None for types with several values.
        plain: Whether voxels are stored as they are: in native byte order, not scaled.
    """

    offset: int
    size: int
    dtype: np.dtype | None
    plain: bool


def read(path: Path) -> np.ndarray | None:
    """Return the voxels of a `.nii` or `.nii.gz` in file order, after checking every byte of it.

    Voxels that are scaled, of another byte order or with several values are checked alike, but not
    returned.

    Raises:
        ImageError: The file is empty, damaged, truncated, longer than its header says, no NIfTI
            file, does not fit into the memory, or a voxel is NaN or infinite.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content, header = _content(igzip.GzipFile(fileobj=file) if compressed else file, path)
    except DAMAGE as error:
        raise ImageError(
            f"The image {path} cannot be read: it is empty, truncated or damaged ({error}). "
            "Replace it with an intact copy."
        ) from error
    if header.dtype is None:
        return None
    voxels = content[header.offset :].view(header.dtype)
    check_finite(voxels, path)
    return voxels if header.plain else None


def _content(stream: IO[bytes] | igzip.GzipFile, path: Path) -> tuple[np.ndarray, _Header]:
    """Read a stream to its end, which also checks its checksum, but not much further than its
    header says.
    """
    start = stream.read(_LARGEST_HEADER)
    header = _header(start, path)
    check_fits(path, header.size)
    content = np.empty(max(header.size, len(start)), np.uint8)
    content[: len(start)] = np.frombuffer(start, np.uint8)
    found, view = len(start), content.data
    while count := stream.readinto(view[found:]):  # type: ignore[union-attr]
        found += count
    if found < header.size:
        raise ImageError(
            f"The image {path} cannot be read: it is truncated, {found} of {header.size} bytes. "
            "Copy it again."
        )
    if len(stream.read(_PADDING + 1)) > _PADDING:
        raise ImageError(
            f"The image {path} holds more than the {header.size} bytes that its header declares."
        )
    return content[: header.size], header


def _header(start: bytes, path: Path) -> _Header:
    """Read the sizes of a NIfTI-1 or NIfTI-2 header of either byte order."""
    # Not nibabel: the check is about bytes, where the voxels begin and how many there must be, in
    # the one pass that also inflates the stream; and some broken headers are mended by nibabel,
    # which must be an error here.
    for order in "<>":
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) >= 4 else 0
        if size in _HEADERS and len(start) >= _HEADERS[size]:
            first = size == 348
            count, *shape = struct.unpack_from(
                f"{order}8h" if first else f"{order}8q", start, 40 if first else 16
            )
            kind, bits = struct.unpack_from(f"{order}2h", start, 70 if first else 12)
            (offset,) = struct.unpack_from(
                f"{order}f" if first else f"{order}q", start, 108 if first else 168
            )
            slope, intercept = struct.unpack_from(
                f"{order}2f" if first else f"{order}2d", start, 112 if first else 176
            )
            offset = (
                max(int(offset), _HEADERS[size])
                if 0 <= offset < _LARGEST_OFFSET
                else _HEADERS[size]
            )
            voxels = math.prod(max(length, 1) for length in shape[:count])
            dtype = (
                np.dtype(order + _KINDS[kind])
                if kind in _KINDS and bits == 8 * int(_KINDS[kind][1])
                else None
            )
            plain = order == _NATIVE and (slope == 0 or (slope == 1 and intercept == 0))
            return _Header(offset, offset + voxels * bits // 8, dtype, plain)
    raise ImageError(
        f"The image {path} cannot be read: it has no NIfTI header; it is empty, truncated, damaged "
        "or of another format."
    )
