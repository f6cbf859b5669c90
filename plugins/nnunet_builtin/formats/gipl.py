"""Headers of GIPL files: where the voxels are, and whether what they say makes sense."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.formats.voxels import Layout, check_spacing, head, is_compressed, refused

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = (".gipl", ".gipl.gz")
_SIZE = 256
_FIELDS = np.dtype(
    {
        "names": ["shape", "kind", "spacing", "origin", "magic"],
        "formats": ["4>u2", ">u2", "4>f4", "4>f8", ">u4"],
        "offsets": [0, 8, 10, 204, 252],
        "itemsize": _SIZE,
    }
)
_MAGIC = (719555000, 4026526128)
_KINDS = {
    7: "i1", 8: "u1", 15: ">i2", 16: ">u2", 31: ">u4", 32: ">i4", 64: ">f4", 65: ">f8",
}  # fmt: skip


def examine(path: Path) -> Layout:
    """Read the header of a `.gipl` or `.gipl.gz`.

    Raises:
        ImageError: The file is no GIPL file, or its header contradicts itself or the file's length,
            has no spacing, or holds numbers that are NaN.
    """
    start = head(path, _SIZE)
    fields = np.frombuffer(start, _FIELDS, 1)[0] if len(start) == _SIZE else None
    if fields is None or int(fields["magic"]) not in _MAGIC:
        raise refused(path, "it has no GIPL header; it is empty, truncated or of another format")
    kind = _KINDS.get(int(fields["kind"]))
    shape = [int(length) for length in fields["shape"]]
    if kind is None or 0 in shape[:2]:
        raise refused(path, f"its header declares type {fields['kind']} and sizes {shape}")
    check_spacing(path, fields["spacing"][: 3 if shape[2] else 2].tolist())
    if not np.all(np.isfinite(fields["origin"][:3])):
        raise refused(path, "its origin holds numbers that are NaN or infinite")
    dtype = np.dtype(kind)
    size = math.prod(max(length, 1) for length in shape) * dtype.itemsize
    compressed = is_compressed(path)
    layout = Layout(path, _SIZE, size, dtype, "gzip" if compressed else "", whole=compressed)
    layout.check()
    return layout
