"""The bytes that hold the voxels of a file: exactly those that its header declares, checksums
included.

ITK fills what is missing with zeros or with what the memory held, ignores checksums and turns NaN
to 0, all without a word.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

import numpy as np
from isal import igzip, isal_zlib
from isal.isal_zlib import IsalError

from nnunet_core.data.images import check_finite
from nnunet_core.errors import ImageError
from nnunet_core.runtime.files import check_regular
from nnunet_core.runtime.memory import check_fits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: What a damaged file raises.
DAMAGE = (OSError, EOFError, zlib.error, cast("type[Exception]", IsalError))
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Layout:
    """Where the voxels of an image lie, as its header says.

    Attributes:
        path: File that holds them.
        offset: Bytes before them; of the uncompressed content where `whole`.
        size: Bytes that they take, uncompressed.
        dtype: Of a voxel; None for several values and other types that only the reader knows.
        compression: Of the voxels: empty, `gzip` or `zlib`.
        whole: Whether the header is compressed, too.
        plain: Whether voxels are stored as they are: not scaled, one value each.
        forms: See `Geometry.forms`.
    """

    path: Path
    offset: int
    size: int
    dtype: np.dtype | None
    compression: str = ""
    whole: bool = False
    plain: bool = True
    forms: tuple[float, ...] = ()

    def check(self) -> None:
        """Raise ImageError where an uncompressed file has another length than its header says, or
        the voxels would fill the memory.
        """
        check_fits(self.path, self.size)
        if not self.compression:
            found, declared = self.path.stat().st_size, self.offset + self.size
            if found != declared:
                raise _other_length(self.path, found, declared)

    def read(self) -> np.ndarray | None:
        """Return the voxels in file order, flat, after checking every byte of them; None where only
        the reader knows what they mean.

        Raises:
            ImageError: Damaged, truncated or longer than the header says, larger than the memory,
                or a voxel is NaN or infinite.
        """
        self.check()
        with opened(self.path) as file:
            content = self._content(file)
        if self.dtype is None:
            return None
        voxels = content.view(self.dtype)
        check_finite(voxels, self.path)
        # ITK reads values of the machine's byte order; so do those who get these
        return voxels.astype(voxels.dtype.newbyteorder("="), copy=False) if self.plain else None

    def _content(self, file: IO[bytes]) -> np.ndarray:
        if self.compression == "zlib":
            file.seek(self.offset)
            return self._inflated(file.read())
        if self.compression and self.whole:
            stream = igzip.GzipFile(fileobj=file)
            stream.read(self.offset)
            return self._exactly(stream)
        file.seek(self.offset)
        return self._exactly(igzip.GzipFile(fileobj=file) if self.compression else file)

    def _exactly(self, stream: IO[bytes] | igzip.GzipFile) -> np.ndarray:
        """Read a stream to its end, which checks its checksum too, but no further than declared."""
        content = np.empty(self.size, np.uint8)
        found, view = 0, content.data
        while found < self.size and (count := stream.readinto(view[found:])):  # type: ignore[union-attr]
            found += count
        found += len(stream.read(1))
        if found != self.size:
            raise _other_length(self.path, found, self.size)
        return content

    def _inflated(self, compressed: bytes) -> np.ndarray:
        inflater = isal_zlib.decompressobj()
        content = inflater.decompress(compressed, self.size + 1)
        if len(content) != self.size or not inflater.eof:
            raise _other_length(self.path, len(content), self.size)
        return np.frombuffer(content, np.uint8)


def _other_length(path: Path, found: int, declared: int) -> ImageError:
    if found < declared:
        return ImageError(
            f"The image {path} cannot be read: it is truncated, {found} of {declared} bytes. Copy "
            "it again."
        )
    return ImageError(
        f"The image {path} holds more than the {declared} bytes that its header declares. Its "
        "header is wrong, or it was not written to its end: make it again."
    )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file; what damaged content raises inside becomes one error.

    Raises:
        ImageError: The file does not exist, is no regular file, or its content is damaged.
    """
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise ImageError(f"The image {path} does not exist.") from error
    except OSError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise ImageError(f"The image {shown} cannot be read: {error}.") from error
    try:
        with path.open("rb") as file:
            yield file
    except DAMAGE as error:
        raise ImageError(
            f"The image {path} cannot be read: it is empty, truncated or damaged ({error}). "
            "Replace it with an intact copy."
        ) from error


def head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, of its content where it is compressed with gzip. Raises
    ImageError.
    """
    with opened(path) as file:
        compressed = file.read(2) == GZIP
        file.seek(0)
        return igzip.GzipFile(fileobj=file).read(size) if compressed else file.read(size)


def is_compressed(path: Path) -> bool:
    """Return whether a file is a gzip stream, whatever its name says. Raises ImageError."""
    with opened(path) as file:
        return file.read(2) == GZIP


def beside(path: Path, name: str, ending: str) -> Path:
    """Return the file with the voxels that a header names: one file, in the header's own folder.

    Raises:
        ImageError: The name is a path, a list or a pattern, or the header's file does not have the
            ending of headers: others hold their voxels.
    """
    plain = name.removeprefix("./")
    if not path.name.lower().endswith(ending):
        raise refused(path, f"its voxels are in another file, '{name[:80]}': name it *{ending}")
    several = "%" in plain or plain.upper().split(" ")[0] == "LIST"
    if several or not plain or plain.startswith(".") or set(plain) & set("/\\\0"):
        raise refused(
            path, f"its header names '{name[:80]}'; voxels are read from one file beside the header"
        )
    source = path.with_name(plain)
    with opened(source):
        return source


def refused(path: Path, problem: str) -> ImageError:
    """Return the error of a header that contradicts itself or says too little."""
    return ImageError(f"The image {path} cannot be read: {problem}.")


def numbers(path: Path, name: str, text: str, count: int) -> tuple[float, ...]:
    """Return `count` finite numbers of a field of a header. Raises ImageError."""
    try:
        found = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        found = ()
    if len(found) != count or not all(math.isfinite(value) for value in found):
        raise refused(path, f"'{name}' of its header is '{text[:80]}', not {count} numbers")
    return found


def sizes(path: Path, name: str, text: str, count: int) -> tuple[int, ...]:
    """Return `count` positive whole numbers of a field of a header. Raises ImageError."""
    parts = text.split()
    if len(parts) != count or not all(part.isdecimal() and int(part[:18]) > 0 for part in parts):
        raise refused(
            path, f"'{name}' of its header is '{text[:80]}', not {count} positive whole numbers"
        )
    return tuple(int(part[:18]) for part in parts)


def check_spacing(path: Path, spacing: Sequence[float]) -> None:
    """Raise ImageError unless every axis has a positive number of mm."""
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        shown = ", ".join(f"{value:g}" for value in spacing)
        raise ImageError(
            f"The image {path} has spacing ({shown}); every axis needs a positive number of mm. "
            "Correct its header."
        )
