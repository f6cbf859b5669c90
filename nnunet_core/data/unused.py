"""Files that lie among those of cases, and that no case uses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_core.data.dataset import CaseFiles
from nnunet_core.errors import counted, listed, natural_order

_NO_IMAGES = (".json", ".npz", ".b2nd", "thumbs.db", "desktop.ini")
_HEADERS = (".mhd", ".nhdr")  # their voxels lie in a file of the same name


def left_out(cases: Iterable[CaseFiles]) -> dict[Path, list[str]]:
    """Return {folder: names of files that no case uses}, of the folders that hold files of cases.

    Files of the operating system, JSON files, hidden files that are no images, and the voxels that
    a header file stands for are none of them.
    """
    used: dict[str, set[str]] = {}
    for case in cases:
        for path in case.paths:
            folder, _, name = str(path).rpartition(os.sep)
            used.setdefault(folder or path.root or ".", set()).add(name)
    found = {Path(folder): _unused(Path(folder), names) for folder, names in used.items()}
    return {folder: names for folder, names in found.items() if names}


def _unused(folder: Path, names: set[str]) -> list[str]:
    with os.scandir(folder) as entries:
        others = [e.name for e in entries if e.name not in names and e.is_file()]
    if not others:
        return []
    endings = tuple({name[name.rfind(".") :].lower() for name in names})
    headers = {name.rpartition(".")[0] for name in names if name.lower().endswith(_HEADERS)}
    found = []
    for name in others:
        voxels = name.removesuffix(".gz").rpartition(".")[0] in headers
        if not voxels and _looks_meant(name, endings):
            found.append(name)
    return sorted(found, key=natural_order)


def left_out_messages(cases: Sequence[CaseFiles]) -> list[str]:
    """Return a sentence per folder for `left_out`."""
    found = left_out(cases).items()
    return [left_out_message(folder, names, cases[0]) for folder, names in found]


def left_out_message(folder: Path, names: Sequence[str], example: CaseFiles) -> str:
    """Return a sentence that names files which no case uses."""
    files_of_no_case = counted(len(names), "file that belongs", "files that belong")
    return (
        f"{folder} holds {files_of_no_case} to no case: {listed(names)}. "
        "These files are left out. Remove what is no part of the data, and complete the others to "
        f"cases with names like {example.paths[0].name}."
    )


def _looks_meant(name: str, endings: tuple[str, ...]) -> bool:
    if name.startswith("."):
        return not name.startswith("._") and name.lower().endswith(endings)
    return not name.lower().endswith(_NO_IMAGES)
