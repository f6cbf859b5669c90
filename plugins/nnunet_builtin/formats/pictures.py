"""Headers of pictures: ITK and the libraries below it fill what is missing, without a word, or do
not come back.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from nnunet_builtin.formats.voxels import opened, refused
from nnunet_core.runtime.memory import check_fits

if TYPE_CHECKING:
    from pathlib import Path

BMP, JPEG, PNG = (".bmp",), (".jpg", ".jpeg"), (".png",)
_BMP_HEADER = struct.Struct("<2sIHHIIiiHHIIiiII")
_MOST_COMPRESSED = 1100  # of deflate: bytes of content for a byte
_END_OF_JPEG = b"\xff\xd9"
_HEAD, _TAIL = 1 << 20, 1 << 16


def examine_bmp(path: Path) -> None:
    """Raise ImageError unless a BMP file is uncompressed and exactly as long as its header says."""
    with opened(path) as file:
        start = file.read(_BMP_HEADER.size)
    if len(start) < _BMP_HEADER.size or start[:2] != b"BM":
        raise refused(path, "it has no BMP header; it is empty, truncated or of another format")
    _, _, _, _, offset, header, width, height, planes, bits, compression, *_, colours, _ = (
        _BMP_HEADER.unpack(start)
    )
    if compression or bits not in (8, 24, 32) or planes != 1 or width < 1 or height == 0:
        raise refused(
            path,
            f"its header declares {width} x {height} pixels of {bits} bits, compression "
            f"{compression}; 8, 24 or 32 bits without compression are read. Save it as .png",
        )
    palette = (colours or 256) * 4 if bits == 8 else 0
    if header < 40 or colours > 256 or offset < 14 + header + palette:
        raise refused(path, "its header contradicts itself: palette and pixels overlap")
    size = (width * bits + 31) // 32 * 4 * abs(height)
    check_fits(path, size)
    # some writers fill up the file to a multiple of four
    if not 0 <= (rest := path.stat().st_size - offset - size) < 4:
        what = "truncated" if rest < 0 else "longer than its header says"
        raise refused(path, f"it is {what}, {offset + size + rest} of {offset + size} bytes")


def has_grey_palette(path: Path) -> bool:
    """Return whether every colour in the palette of a BMP file is grey; False without a palette."""
    with path.open("rb") as file:
        values = _BMP_HEADER.unpack(file.read(_BMP_HEADER.size))
        header, bits, colours = values[5], values[9], values[14]
        file.seek(14 + header)
        palette = file.read((colours or 256) * 4) if bits == 8 else b""
    return bool(palette) and palette[::4] == palette[1::4] == palette[2::4]


def examine_jpeg(path: Path) -> None:
    """Raise ImageError for a JPEG file without a beginning, without an end, or whose header
    promises more than its bytes can hold: the rest would be grey.
    """
    with opened(path) as file:
        start = file.read(_HEAD)
        file.seek(max(0, path.stat().st_size - _TAIL))
        if start[:3] != b"\xff\xd8\xff" or _END_OF_JPEG not in file.read():
            raise refused(path, "it is empty, truncated or of another format than JPEG")
    height, width = _jpeg_size(start, path)
    # each block of 8 x 8 pixels takes at least one bit
    if -(-height // 8) * -(-width // 8) > 8 * path.stat().st_size:
        raise refused(path, f"it is truncated: {width} x {height} pixels cannot be in it")


def _jpeg_size(start: bytes, path: Path) -> tuple[int, int]:
    """Return height and width from the frame of a JPEG file, which stands behind other segments."""
    place = 2
    while place + 9 <= len(start) and start[place] == 0xFF:
        marker, length = start[place + 1], struct.unpack_from(">H", start, place + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">2H", start, place + 5)
            return int(height), int(width)
        place += 1 if marker == 0xFF else 2 + length
    raise refused(path, "it is truncated or damaged: it has no header of a frame")


def examine_png(path: Path) -> None:
    """Raise ImageError for a PNG file whose header promises more than its bytes can hold; the rest
    has checksums.
    """
    with opened(path) as file:
        start = file.read(33)
    if len(start) < 33 or start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR":
        raise refused(path, "it has no PNG header; it is empty, truncated or of another format")
    width, height, bits = struct.unpack(">IIB", start[16:25])
    if width * height * bits // 8 > _MOST_COMPRESSED * path.stat().st_size:
        raise refused(path, f"it is truncated: {width} x {height} pixels cannot be in it")
