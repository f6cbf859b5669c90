"""How nnU-Net names files: CASE_0000.ext of images, CASE.ext of labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_core.data.folders import without_ending

#: Of a file with one channel, without its ending; and where only the name is known, with any
#: ending.
CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
CHANNEL_FILE = re.compile(r"._\d{4}\.")


@dataclass(frozen=True)
class Entry:
    """What `training` or `test` of a dataset.json says of a case.

    Attributes:
        name: Case name.
        images: One path as v1 writes it, without channel number; or a list of one path per channel.
        label: Path, or None.
    """

    name: str
    images: tuple[str, ...]
    label: str | None = None


def by_channel(named: Mapping[str, Path]) -> dict[str, dict[int, Path]]:
    """Return {case: {channel: path}} of the names CASE_0000, CASE_0001, ...; others are left
    out.
    """
    found: dict[str, dict[int, Path]] = {}
    for name, path in named.items():
        if match := CHANNEL.fullmatch(name):
            found.setdefault(match["case"], {})[int(match["channel"])] = path
    return found


def read_entries(entries: object, ending: str) -> list[Entry]:
    """Return the cases that `training` or `test` of a dataset.json lists; empty when it lists none.

    An entry is `{"image": "./imagesTr/case.nii.gz", "label": ...}`, a list of images of its
    channels in place of the one, or a path alone.
    """
    rows: Iterable[object] = entries if isinstance(entries, list | tuple) else ()
    return [_entry(row if isinstance(row, Mapping) else {"image": row}, ending) for row in rows]


def _entry(row: Mapping[str, object], ending: str) -> Entry:
    image, label = row.get("image", ""), row.get("label")
    several = isinstance(image, list | tuple)
    images = [str(path) for path in image] if isinstance(image, list | tuple) else [str(image)]
    paths = tuple(path.replace("\\", "/") for path in images)
    name = without_ending(paths[0].rpartition("/")[2], ending) if paths else ""
    match = CHANNEL.fullmatch(name) if several else None
    shown = None if label is None else str(label).replace("\\", "/")
    return Entry(match["case"] if match else name, paths, shown)


def entry_names(entries: object, ending: str) -> list[str]:
    """Return the names of `read_entries`."""
    return [entry.name for entry in read_entries(entries, ending)]
