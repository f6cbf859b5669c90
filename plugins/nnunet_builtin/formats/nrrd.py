"""Compressed NRRD files before their reader sees them: it inflates without looking at the
checksum.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from isal import igzip

from nnunet_builtin.formats.nifti import DAMAGE
from nnunet_core.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_HEADER = 1 << 20
_BLOCK = 1 << 22
_BYTES = {
    "char": 1,
    "8": 1,
    "short": 2,
    "16": 2,
    "longlong": 8,
    "64": 8,
    "int": 4,
    "32": 4,
    "float": 4,
    "double": 8,
}


def check(path: Path) -> None:
    """Read the compressed voxels of a `.nrrd` file once; other encodings and detached data are left
    to the reader.

    Raises:
        ImageError: The voxels are damaged, truncated, or more than the header declares.
    """
    # Not pynrrd: three fields and the first byte of the voxels are all that is needed; ITK reads
    # the header itself.
    with path.open("rb") as file:
        header, _, start = file.read(_LONGEST_HEADER).partition(b"\n\n")
        fields = dict(re.findall(rb"^([^:#\n]+): *(.*?)\r?$", header, re.MULTILINE))
        if fields.get(b"encoding", b"").strip() not in {b"gzip", b"gz"} or not start:
            return
        file.seek(len(header) + 2)
        try:
            _inflate(igzip.GzipFile(fileobj=file), _declared(fields), path)
        except DAMAGE as error:
            raise ImageError(
                f"The image {path} cannot be read: its voxels are truncated or damaged ({error}). "
                "Replace it with an intact copy."
            ) from error


def _inflate(stream: igzip.GzipFile, declared: int, path: Path) -> None:
    found = 0
    while block := stream.read(_BLOCK):
        found += len(block)
        if found > declared:
            raise ImageError(
                f"The image {path} holds more than the {declared} bytes that its header declares."
            )


def _declared(fields: dict[bytes, bytes]) -> int:
    """Return the bytes of the voxels; the reader itself complains about fields that it does not
    understand.
    """
    sizes = [int(size) for size in fields.get(b"sizes", b"").split() if size.isdigit()]
    kind = fields.get(b"type", b"").decode("ascii", "replace").replace(" ", "")
    width = next((count for name, count in _BYTES.items() if name in kind), max(_BYTES.values()))
    return math.prod(sizes) * width
