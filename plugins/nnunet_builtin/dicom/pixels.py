"""What a DICOM file must hold before its reader sees it: that one makes 1 mm of a spacing that is
missing, and fills missing pixels with whatever the memory held.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_core.errors import ImageError
from nnunet_core.runtime.files import check_regular

if TYPE_CHECKING:
    import SimpleITK as sitk

#: Transfer syntaxes of pixels as they are: {UID: (order of bytes, whether types are written)}.
_NATIVE = {
    "1.2.840.10008.1.2": ("<", False),
    "1.2.840.10008.1.2.1": ("<", True),
    "1.2.840.10008.1.2.2": (">", True),
}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXEL_DATA, _PIXEL_SPACING = (0x7FE0, 0x0010), (0x0028, 0x0030)
_SPACINGS = ("0028|0030", "0018|1164")  # in the patient, and at the detector
_HEADER = 1 << 22
_DELIMITER, _TAIL = b"\xfe\xff\xdd\xe0\0\0\0\0", 1 << 16
_FRAMES, _SAMPLES, _ROWS, _COLUMNS, _BITS = (
    "0028|0008",
    "0028|0002",
    "0028|0010",
    "0028|0011",
    "0028|0100",
)


def check_file(path: Path) -> None:
    """Refuse what must not reach a reader of DICOM: no regular file, or a name that is not UTF-8.

    Raises:
        ImageError: See above.
    """
    try:
        check_regular(path)
    except OSError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise ImageError(f"The DICOM file {shown} cannot be read: {error}.") from error


def check_content(name: str, reader: sitk.ImageFileReader) -> None:
    """Check a file whose header was read.

    Raises:
        ImageError: It has no pixel spacing, one that is 0, or fewer pixels than its header
            declares.
    """
    path = Path(name)
    syntax = _text(reader, "0002|0010") or _syntax(path)
    order, explicit = _NATIVE.get(syntax, ("<", True))
    spacing = next((text for tag in _SPACINGS if (text := _text(reader, tag))), "")
    if spacing:
        _check_spacing(spacing, name)
    elif syntax != _DEFLATED and not _holds(path, struct.pack(f"{order}2H", *_PIXEL_SPACING)):
        # enhanced files have it in sequences, where the reader finds it
        raise ImageError(
            f"The DICOM file {name} has no PixelSpacing (0028,0030): the size of its pixels is "
            "unknown. Add it, or convert the series with its spacing to .nii.gz."
        )
    if syntax in _NATIVE:
        _check_length(path, reader, order, explicit)
    elif syntax != _DEFLATED and not _ends(path):
        raise ImageError(
            f"The DICOM file {name} is truncated: its compressed pixels have no end. Export it "
            "again."
        )


def _check_spacing(text: str, name: str) -> None:
    try:
        values = [float(part) for part in text.split("\\")]
    except ValueError:
        values = []
    if len(values) != 2 or not all(math.isfinite(v) and v > 0 for v in values):
        raise ImageError(
            f"The DICOM file {name} has the PixelSpacing '{text}'; two positive numbers of mm are "
            "needed. Correct it."
        )


def _check_length(path: Path, reader: sitk.ImageFileReader, order: str, explicit: bool) -> None:
    """Raise ImageError unless the pixels of every row, column and frame are in the file."""
    counts = [_text(reader, tag) or "1" for tag in (_ROWS, _COLUMNS, _SAMPLES, _FRAMES)]
    bits = _text(reader, _BITS) or "8"
    if not all(count.isdecimal() for count in (*counts, bits)):
        raise ImageError(
            f"The DICOM file {path} declares rows, columns, values and frames as {counts}; whole "
            "numbers are needed. Export it again."
        )
    expected = (math.prod(map(int, counts)) * int(bits) + 7) // 8
    size = path.stat().st_size
    tag = struct.pack(f"{order}2H", *_PIXEL_DATA)
    found = 0
    with path.open("rb") as file:
        # the pixels are last, or nearly: their tag stands before as many bytes as they take
        head = file.read(max(0, size - expected))
    place = head.find(tag)
    while place >= 0 and found < expected:
        found = max(found, _length(head, place, order, explicit, size))
        place = head.find(tag, place + 1)
    if found < expected:
        raise ImageError(
            f"The DICOM file {path} has fewer than the {expected} bytes of pixels that its header "
            f"declares ({' x '.join(counts)}, {bits} bits). It is truncated: export it again."
        )


def _length(head: bytes, place: int, order: str, explicit: bool, size: int) -> int:
    """Return the bytes of the pixels behind a tag, 0 where it is none: they would not be in the
    file.
    """
    begin = place + (12 if explicit else 8)
    if begin > len(head) or (explicit and head[place + 4 : place + 6] not in {b"OW", b"OB"}):
        return 0
    (length,) = struct.unpack_from(f"{order}I", head, begin - 4)
    return int(length) if begin + length <= size else 0


def _syntax(path: Path) -> str:
    """Return the transfer syntax that the file's first group names."""
    with path.open("rb") as file:
        start = file.read(4096)
    place = start.find(b"\x02\x00\x10\x00UI")
    if place < 0:
        return ""
    (length,) = struct.unpack_from("<H", start, place + 6)
    return start[place + 8 : place + 8 + length].decode("ascii", "replace").strip(" \0")


def _holds(path: Path, tag: bytes) -> bool:
    with path.open("rb") as file:
        return tag in file.read(_HEADER)


def _ends(path: Path) -> bool:
    """Return whether compressed pixels are closed by the delimiter of their sequence."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return _DELIMITER in file.read()


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    return str(reader.GetMetaData(tag)).strip(" \0") if reader.HasMetaDataKey(tag) else ""
