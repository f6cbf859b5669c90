"""How nnU-Net names files: CASE_0000.ext of images, CASE.ext of labels; whatever lists a folder of
them does it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Of a file with one channel, without its ending; and where only the name is known, with any
#: ending.
CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
CHANNEL_FILE = re.compile(r"._\d{4}\.")


def list_files(folder: Path, ending: str) -> dict[str, Path]:
    """Return {name without ending: path} of the files of one ending, sorted; hidden ones are left
    out.

    A DICOM series is a folder with an ending. There is nothing in a folder that does not exist.
    """
    if not folder.is_dir():
        return {}
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name.removesuffix(ending): path for path in found if path.name.endswith(ending)}


def by_channel(named: Mapping[str, Path]) -> dict[str, dict[int, Path]]:
    """Return {case: {channel: path}} of the names CASE_0000, CASE_0001, ...; others are left
    out.
    """
    found: dict[str, dict[int, Path]] = {}
    for name, path in named.items():
        if match := CHANNEL.fullmatch(name):
            found.setdefault(match["case"], {})[int(match["channel"])] = path
    return found


def entry_names(entries: object, ending: str) -> list[str]:
    """Return the cases that `training` or `test` of a dataset.json lists; empty when it lists none.

    An entry is `{"image": "./imagesTr/case.nii.gz", "label": ...}`, or a path alone.
    """
    listed: Iterable[object] = entries if isinstance(entries, list | tuple) else ()
    paths = [entry.get("image", "") if isinstance(entry, Mapping) else entry for entry in listed]
    return [str(p).replace("\\", "/").rpartition("/")[2].removesuffix(ending) for p in paths]
