"""The directories of TIFF files: every strip of every page must be there before a reader sees
them.
"""

from __future__ import annotations

import struct
from typing import IO, TYPE_CHECKING, Any

from nnunet_builtin.formats.voxels import opened, refused
from nnunet_core.runtime.memory import check_fits

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

ENDINGS = (".tif", ".tiff")
_MOST_COMPRESSED = 1500  # of LZW and deflate: bytes of content for a byte
_MOST_PAGES = 65_535
_MOST_VALUES = 1 << 24  # of a tag
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANAR = 256, 257, 258, 259, 277, 278, 284
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _TILE_SIZES = 273, 279, 324, 325, (322, 323)
_NEWER = 43  # of BigTIFF
#: {tag: (what it is without the tag, values that a reader is sure to understand)}.
_LAYOUT: dict[int, tuple[int, Container[int]]] = {
    _WIDTH: (0, range(1, 1 << 31)),
    _LENGTH: (0, range(1, 1 << 31)),
    _BITS: (1, (1, 8, 16, 32, 64)),
    _SAMPLES: (1, range(1, 1 << 10)),
    _COMPRESSION: (1, (1, 5, 7, 8, 32773, 32946)),
    254: (0, (0, 2)),  # an image, or a page of one; no smaller copy of another page
    262: (-1, (0, 1, 2, 3, 6)),  # photometric interpretation, which must be there
    266: (1, (1,)),  # order of bits
    274: (1, (1,)),  # orientation
    _PLANAR: (1, (1, 2)),
    317: (1, (1, 2, 3)),  # predictor
    339: (1, (1, 2, 3)),  # whole numbers, with sign, floating point
}
_OTHERS = (_ROWS, _STRIPS, _STRIP_BYTES, 320, *_TILE_SIZES, _TILES, _TILE_BYTES, 338)

Tags = dict[int, tuple[int, ...]]


def examine(path: Path) -> None:
    """Check that a TIFF file holds every page, strip and byte that its directories name.

    Raises:
        ImageError: It does not, pages differ in size or type, or they would fill the memory.
    """
    length = path.stat().st_size if path.is_file() else 0
    with opened(path) as file:
        try:
            pages = _pages(file, length, path)
        except struct.error as error:
            raise refused(path, "it is truncated or damaged: a directory is not there") from error
    first = _form(pages[0], path)
    for number, page in enumerate(pages):
        form = _form(page, path)
        if form != first:  # ITK would write beyond its memory
            raise refused(path, f"page {number} differs from the first in size or type of pixels")
        _check_page(page, form, length, path, number)
    size = first[_WIDTH] * first[_LENGTH] * first[_SAMPLES] * first[_BITS] // 8 * len(pages)
    check_fits(path, size)
    if size > _MOST_COMPRESSED * length:
        raise refused(path, f"its directories declare {size} bytes of pixels in {length} bytes")


def _pages(file: IO[bytes], length: int, path: Path) -> list[Tags]:
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    version = struct.unpack_from(f"{order}H", start, 2)[0] if order and len(start) >= 8 else 0
    if order is None or version not in (42, _NEWER):
        raise refused(path, "it has no TIFF header; it is empty, truncated or of another format")
    big = version == _NEWER
    (place,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", start, 8 if big else 4)
    pages: list[Tags] = []
    seen: set[int] = set()
    while place:
        if place in seen or place >= length or len(pages) >= _MOST_PAGES:
            raise refused(path, f"page {len(pages)} is not there: it is truncated or damaged")
        seen.add(place)
        page, place = _page(file, place, order, big)
        tags = list(page)
        if tags != sorted(set(tags)):
            raise refused(path, f"the tags of page {len(pages)} are out of order: it is damaged")
        pages.append(page)
    if not pages:
        raise refused(path, "it holds no page")
    return pages


def _page(file: IO[bytes], place: int, order: str, big: bool) -> tuple[Tags, int]:
    """Return the tags of a page that are whole numbers, and where the next page is."""
    counts, entry, offset = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (count,) = _unpack(file, place, order + counts)
    place += struct.calcsize(order + counts)
    size = struct.calcsize(order + entry)
    tags: Tags = {}
    for index in range(min(count, 4096)):
        tag, kind, number, inline = _unpack(file, place + index * size, order + entry)
        counted = kind in _TYPES and 0 < number <= _MOST_VALUES
        if not counted:
            # of what decides about the pixels, nothing is left out: the empty one will be refused
            if tag in _LAYOUT or tag in _OTHERS:
                tags[tag] = (-1,)
            continue
        form = f"{order}{number}{_TYPES[kind]}"
        if struct.calcsize(form) <= len(inline):
            tags[tag] = struct.unpack_from(form, inline)
        else:
            (where,) = struct.unpack(order + offset, inline)
            tags[tag] = _unpack(file, where, form)
    (following,) = _unpack(file, place + count * size, order + offset)
    return tags, following


def _unpack(file: IO[bytes], place: int, form: str) -> tuple[Any, ...]:
    file.seek(place)
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _form(page: Tags, path: Path) -> dict[int, int]:
    """Return the one value of each tag of `_LAYOUT`. Raises ImageError for values that a reader
    might not expect.
    """
    form = {}
    for tag, (default, allowed) in _LAYOUT.items():
        values = page.get(tag, (default,))
        if len(set(values)) != 1 or values[0] not in allowed:
            raise refused(
                path,
                f"its tag {tag} has the values {values[:4]}, which are not read. Save it as 8 or "
                "16 bit, uncompressed or with LZW or deflate, or as .png",
            )
        form[tag] = values[0]
    if form[339] == 3 and form[_BITS] < 32:
        raise refused(path, f"its pixels are floating point numbers of {form[_BITS]} bits")
    return form


def _check_page(page: Tags, form: dict[int, int], length: int, path: Path, number: int) -> None:
    width, rows, samples, bits = (form[tag] for tag in (_WIDTH, _LENGTH, _SAMPLES, _BITS))
    apart = form[_PLANAR] == 2
    if _TILES in page:
        offsets, sizes = page[_TILES], page.get(_TILE_BYTES, ())
        wide, high = (max(page.get(tag, (0,))[0], 0) for tag in _TILE_SIZES)
        pieces = -(-width // wide) * -(-rows // high) if wide and high else 0
    else:
        offsets, sizes = page.get(_STRIPS, ()), page.get(_STRIP_BYTES, ())
        wide, high = width, max(min(page.get(_ROWS, (rows,))[0], rows), 0)
        pieces = -(-rows // high) if high else 0
    if pieces == 0 or not len(offsets) == len(sizes) == pieces * (samples if apart else 1):
        raise refused(path, f"page {number} has {len(offsets)} strips; it is damaged")
    ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
    if min(sizes) < 1 or min(offsets) < 8 or max(ends) > length:
        raise refused(path, f"page {number} is truncated: {length} of {max(ends)} bytes")
    if form[_COMPRESSION] == 1:
        line = -(-wide * bits * (1 if apart else samples) // 8)
        height = rows if _TILES not in page else high * pieces
        expected = line * height * (samples if apart else 1)
        if sum(sizes) < expected:
            raise refused(path, f"page {number} has {sum(sizes)} of {expected} bytes")
