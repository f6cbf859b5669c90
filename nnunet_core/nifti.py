"""NIfTI files before their reader sees them: inflated once, with checksum, size and NaN checked on the way.

The reader of ITK fills what is missing with zeros, ignores checksums and turns NaN to 0, all without a word.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np
from isal import igzip
from isal.isal_zlib import IsalError

from nnunet_core.errors import ImageError, StorageError
from nnunet_core.memory import check_fits

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDINGS = (".nii", ".nii.gz")
_BLOCK = 1 << 22  # bytes
_PADDING = 1 << 20  # bytes that may follow the voxels
#: What a damaged gzip stream raises.
DAMAGE = (OSError, EOFError, zlib.error, cast("type[Exception]", IsalError))
_LARGEST_OFFSET = 1 << 26
_MEMORY_DISK = Path("/dev/shm")
_FLOATS = {16: "f4", 64: "f8"}
_HEADERS = {348: 352, 540: 544}  # sizeof_hdr of NIfTI-1 and NIfTI-2: bytes before the voxels
_LARGEST_HEADER = max(_HEADERS.values())


@dataclass(frozen=True)
class _Header:
    """What the checks need.

    Attributes:
        offset: Where the voxels begin, bytes.
        size: The whole uncompressed file, bytes.
        floats: NumPy type of floating-point voxels, or None.
    """

    offset: int
    size: int
    floats: str | None


@contextlib.contextmanager
def checked(path: Path) -> Iterator[Path]:
    """Yield an uncompressed file with the content of a `.nii` or `.nii.gz`, after checking every byte of it.

    Raises:
        ImageError: The file is empty, damaged, truncated, longer than its header says, no NIfTI file, does not fit into
            the memory, or a voxel is NaN or infinite.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not compressed:
                _copy(file, None, path)
                yield path
                return
            with tempfile.TemporaryDirectory(prefix="nnunet-", dir=_folder_for(file, path)) as folder:
                inflated = Path(folder) / "image.nii"
                with igzip.GzipFile(fileobj=file) as stream, _Target(inflated) as target:
                    _copy(stream, target, path)
                yield inflated
    except DAMAGE as error:
        raise ImageError(
            f"The image {path} cannot be read: it is empty, truncated or damaged ({error}). Replace it with an intact copy."
        ) from error


class _Target:
    """A temporary file whose errors are not those of the image."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *_: object) -> None:
        with self._errors():
            self._file.close()

    def write(self, block: bytes) -> None:
        """Write all of the block. Raises StorageError."""
        with self._errors():
            self._file.write(block)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"No space left to inflate an image to {self._file.name} ({error}). Free some space there, or let TMPDIR "
                "name another folder."
            ) from error


def _folder_for(file: IO[bytes], path: Path) -> str | None:
    """Return where to inflate a file to: in memory, if there is room enough; None is the system's default."""
    with igzip.GzipFile(fileobj=file) as stream:
        needed = _header(stream.read(_LARGEST_HEADER), path).size
    file.seek(0)
    check_fits(path, needed)
    roomy = _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > 2 * needed
    return str(_MEMORY_DISK) if roomy else None


def _copy(source: IO[bytes] | igzip.GzipFile, target: _Target | None, path: Path) -> None:
    """Read the source to its end, count NaN, and write it to the target."""
    block = source.read(_LARGEST_HEADER)
    header, found, lost = _header(block, path), 0, 0
    while block:
        lost += _count_lost(block[max(0, header.offset - found) : max(0, header.size - found)], header.floats)
        found += len(block)
        if found > header.size + _PADDING:
            raise ImageError(f"The image {path} holds more than the {header.size} bytes that its header declares.")
        if target is not None:
            target.write(block)
        block = source.read(_BLOCK)
    if found < header.size:
        raise ImageError(
            f"The image {path} cannot be read: it is truncated, {found} of {header.size} bytes. Copy it again."
        )
    if lost:
        raise ImageError(
            f"{path} holds {lost} voxels that are NaN or infinite. "
            "Replace them with a number, for example the background intensity."
        )


def _count_lost(block: bytes, floats: str | None) -> int:
    if floats is None:
        return 0
    values = np.frombuffer(block[: len(block) // 8 * 8], floats)
    return 0 if np.isfinite(values.sum()) else int(np.count_nonzero(~np.isfinite(values)))


def _header(start: bytes, path: Path) -> _Header:
    """Read the sizes of a NIfTI-1 or NIfTI-2 header of either byte order."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) >= 4 else 0
        if size in _HEADERS and len(start) >= _HEADERS[size]:
            first = size == 348
            count, *shape = struct.unpack_from(f"{order}8h" if first else f"{order}8q", start, 40 if first else 16)
            kind, bits = struct.unpack_from(f"{order}2h", start, 70 if first else 12)
            (offset,) = struct.unpack_from(f"{order}f" if first else f"{order}q", start, 108 if first else 168)
            offset = max(int(offset), _HEADERS[size]) if 0 <= offset < _LARGEST_OFFSET else _HEADERS[size]
            voxels = math.prod(max(length, 1) for length in shape[:count])
            floats = _FLOATS.get(kind)
            return _Header(offset, offset + voxels * bits // 8, None if floats is None else order + floats)
    raise ImageError(
        f"The image {path} cannot be read: it has no NIfTI header; it is empty, truncated, damaged or of another format."
    )
