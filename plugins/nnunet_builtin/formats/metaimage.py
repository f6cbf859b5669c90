"""Headers of MetaImage files: where the voxels are, and whether what they say makes sense."""

from __future__ import annotations

import math
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

ENDINGS = (".mha", ".mhd")
DETACHED = ".mhd"
_LONGEST_HEADER = 1 << 20
_KINDS = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def examine(path: Path) -> Layout:
    """Read the header of a `.mha` or `.mhd`.

    Raises:
        ImageError: The file is no MetaImage, or its header contradicts itself or the file's length,
            has no spacing, holds numbers that are NaN, or points outside the file's folder.
    """
    fields, begin = _fields(head(path, _LONGEST_HEADER), path)
    (dimension,) = sizes(path, "NDims", fields.get("ndims", ""), 1)
    shape = sizes(path, "DimSize", fields.get("dimsize", ""), dimension)
    (channels,) = sizes(path, "channels", fields.get("elementnumberofchannels", "1"), 1)
    kind = _KINDS.get(fields.get("elementtype", "").removesuffix("_ARRAY"))
    if kind is None:
        raise refused(path, f"its header declares the type '{fields.get('elementtype', '')}'")
    _check_place(fields, dimension, path)
    if _flag(fields, "binarydata", "True") != "true":
        raise refused(path, "its voxels are written as text: save them as binary data")
    size = math.prod(shape) * channels * int(kind[1])
    name = fields["elementdatafile"]
    local = name.upper() == "LOCAL"
    source, offset = (path, begin) if local else (beside(path, name, DETACHED), 0)
    (skip,) = numbers(path, "HeaderSize", fields.get("headersize", "0"), 1)
    offset = source.stat().st_size - size if skip == -1 else offset + int(max(skip, 0))
    most = _flag(fields, "binarydatabyteordermsb", _flag(fields, "elementbyteordermsb", "False"))
    compression = "zlib" if _flag(fields, "compresseddata", "False") == "true" else ""
    order = ">" if most == "true" else "<"
    layout = Layout(source, offset, size, np.dtype(order + kind), compression)
    layout.check()
    return layout


def _fields(start: bytes, path: Path) -> tuple[dict[str, str], int]:
    """Return {name in lower case: value}, and where the header ends."""
    fields: dict[str, str] = {}
    begin = 0
    while (end := start.find(b"\n", begin)) >= 0 or begin < len(start):
        line = start[begin : end if end >= 0 else len(start)]
        begin = end + 1 if end >= 0 else len(start)
        name, equals, value = line.decode("latin-1").partition("=")
        if not equals:
            break
        fields[name.strip().lower()] = value.strip()
        if name.strip().lower() == "elementdatafile":
            return fields, begin
    raise refused(path, "it has no MetaImage header; it is empty, truncated or of another format")


def _flag(fields: dict[str, str], name: str, default: str) -> str:
    return {"1": "true", "t": "true"}.get(value := fields.get(name, default).lower(), value)


def _check_place(fields: dict[str, str], dimension: int, path: Path) -> None:
    """Raise ImageError where spacing is missing, or numbers of the geometry are NaN."""
    spacing = fields.get("elementspacing", fields.get("elementsize"))
    if spacing is None:
        raise refused(path, "its header has no spacing: add 'ElementSpacing' in mm")
    check_spacing(path, numbers(path, "ElementSpacing", spacing, dimension))
    counts = {
        **dict.fromkeys(("transformmatrix", "orientation", "rotation"), dimension**2),
        **dict.fromkeys(("offset", "position", "origin"), dimension),
    }
    for name, count in counts.items():
        if name in fields:
            numbers(path, name, fields[name], count)
