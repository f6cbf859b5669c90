"""Headers of NRRD files: where the voxels are, and whether what they say makes sense."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.formats.voxels import (
    Layout,
    beside,
    check_spacing,
    head,
    numbers,
    refused,
    sizes,
)

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = (".nrrd", ".seg.nrrd", ".nhdr")
DETACHED = ".nhdr"
_LONGEST_HEADER = 1 << 20
_TYPES = {
    "i1": "signed char,char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
_KINDS = {name: kind for kind, names in _TYPES.items() for name in names.split(",")}
_ENCODINGS = {"raw": "", "gzip": "gzip", "gz": "gzip"}


def examine(path: Path) -> Layout:
    """Read the header of an NRRD file.

    Raises:
        ImageError: The file is no NRRD file, or its header contradicts itself or the file's length,
            has no spacing, holds numbers that are NaN, or points outside the file's folder.
    """
    # Not pynrrd: it would read what ITK reads another way; these checks are about bytes.
    header, end, _ = _split(head(path, _LONGEST_HEADER))
    fields = {
        name.strip().lower(): value.strip()
        for name, value in re.findall(r"^([^:#\n]+):[ =]*(.*?)\r?$", header, re.MULTILINE)
    }
    if not header.startswith("NRRD000") or (not end and DETACHED not in path.name.lower()):
        raise refused(path, "it has no NRRD header; it is empty, truncated or of another format")
    (dimension,) = sizes(path, "dimension", fields.get("dimension", ""), 1)
    shape = sizes(path, "sizes", fields.get("sizes", ""), dimension)
    kind = _KINDS.get(fields.get("type", "").lower())
    if kind is None:
        raise refused(path, f"its header declares the type '{fields.get('type', '')}' of voxels")
    _check_place(fields, dimension, path)
    encoding = _ENCODINGS.get(fields.get("encoding", "").lower())
    if encoding is None:
        raise refused(
            path, f"its encoding is '{fields.get('encoding', '')}': save it as raw or gzip"
        )
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    size = math.prod(shape) * int(kind[1])
    source, offset = _data(fields, path, len(header.encode("latin-1")) + len(end), size)
    layout = Layout(source, offset, size, np.dtype(order + kind), encoding)
    layout.check()
    return layout


def _split(start: bytes) -> tuple[str, str, str]:
    """Return header, the empty line after it, and the rest."""
    text = start.decode("latin-1")
    match = re.search(r"\r?\n\r?\n", text)
    return (text, "", "") if match is None else (text[: match.start()], match[0], "")


def _data(fields: dict[str, str], path: Path, begin: int, size: int) -> tuple[Path, int]:
    """Return the file with the voxels and the bytes before them."""
    name = fields.get("data file", fields.get("datafile"))
    source, offset = path, begin
    if name is not None:
        source, offset = beside(path, name, DETACHED), 0
    skip = fields.get("byte skip", fields.get("byteskip", "0"))
    lines = fields.get("line skip", fields.get("lineskip", "0"))
    if lines != "0" or not re.fullmatch(r"-1|\d{1,12}", skip):
        raise refused(path, f"'line skip' {lines} or 'byte skip' {skip} of its header is not read")
    return source, (source.stat().st_size - size if skip == "-1" else offset + int(skip))


def _check_place(fields: dict[str, str], dimension: int, path: Path) -> None:
    """Raise ImageError where an axis of space has no spacing, or numbers are NaN."""
    spacing, directions = fields.get("spacings"), fields.get("space directions")
    if directions is not None:
        vectors = re.findall(r"\(([^()]*)\)|none", directions)
        axes = [numbers(path, "space directions", text, _count(text)) for text in vectors if text]
        lengths = [math.hypot(*axis) for axis in axes]
    else:
        texts = (spacing or "").split()
        axes = []
        lengths = [
            abs(numbers(path, "spacings", text, 1)[0]) for text in texts if text.lower() != "nan"
        ]
    if len(lengths) < min(2, dimension) or len(lengths) < dimension - 1:
        raise refused(path, "its header has no spacing: add 'space directions' or 'spacings' in mm")
    check_spacing(path, lengths)
    if (origin := fields.get("space origin")) is not None:
        inside = origin.strip("()")
        numbers(path, "space origin", inside, len(axes[0]) if axes else _count(inside))


def _count(text: str) -> int:
    return text.count(",") + 1
