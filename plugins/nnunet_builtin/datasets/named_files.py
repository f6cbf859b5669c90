"""Files that dataset.json names: those of `dataset` are used, those of `training` must be the ones
that are used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from nnunet_builtin.datasets.naming import CHANNEL, Entry
from nnunet_core.data.dataset import CaseFiles
from nnunet_core.data.metadata import first_problem
from nnunet_core.errors import DatasetError, counted, listed


class _Files(BaseModel):
    images: list[str] = Field(min_length=1)
    label: str


_CASES: TypeAdapter[dict[str, _Files]] = TypeAdapter(dict[str, _Files])


def named_cases(document: Mapping[str, Any], path: Path) -> list[CaseFiles]:
    """Return the cases of `dataset` of a dataset.json of v2, sorted by name.

    Paths are relative to dataset.json, or absolute.

    Args:
        document: Content of dataset.json.
        path: Of dataset.json.

    Raises:
        DatasetError: It has another form, cases are listed as `training` too, or files are missing.
    """
    if document.get("training"):
        raise DatasetError(
            f"{path} lists cases twice, as 'dataset' and as 'training'. Remove one of the lists."
        )
    try:
        rows = _CASES.validate_python(document["dataset"])
    except ValidationError as error:
        raise DatasetError(
            f"{path}: 'dataset' must map case names to their files, {{CASE: {{'images': [...], "
            f"'label': ...}}}}: {first_problem(error)}."
        ) from error
    if wrong := [name for name in rows if not name or PurePosixPath(name).name != name]:
        raise DatasetError(f"{path}: 'dataset' has the case {wrong[0]!r}; names are without '/'.")
    cases = []
    for name, row in sorted(rows.items()):
        image, *others, label = (_place(path.parent, file) for file in (*row.images, row.label))
        cases.append(CaseFiles(name, (Path(image), *map(Path, others)), Path(label)))
    if missing := [str(file) for case in cases for file in case.paths if not file.exists()]:
        raise DatasetError(
            f"{path} names {counted(len(missing), 'file')} that cannot be found: {listed(missing)}."
        )
    return cases


def select(cases: Iterable[CaseFiles], entries: Sequence[Entry], path: Path) -> list[CaseFiles]:
    """Return the cases that `training` of a dataset.json lists, sorted by name.

    Args:
        cases: Cases of imagesTr.
        entries: What `training` lists.
        path: Of dataset.json, for messages.

    Raises:
        DatasetError: A case is listed twice, or has no images.
    """
    by_name = {case.name: case for case in cases}
    names = [_case_name(entry, by_name) for entry in entries]
    if len(set(names)) != len(names):
        double = sorted({name for name in names if names.count(name) > 1})
        raise DatasetError(f"{path} lists these training cases more than once: {listed(double)}.")
    if missing := [name for name in names if name not in by_name]:
        raise DatasetError(
            f"{path} lists {counted(len(missing), 'training case')} without images in "
            f"{path.parent / 'imagesTr'}: {listed(missing)}."
        )
    return [by_name[name] for name in sorted(names)]


def check_entries(entries: Iterable[Entry], cases: Iterable[CaseFiles], path: Path) -> None:
    """Refuse entries of `training` that name other files than those of imagesTr and labelsTr.

    Args:
        entries: What `training` lists.
        cases: These cases, with the files that are used.
        path: Of dataset.json.

    Raises:
        DatasetError: They name others.
    """
    by_name = {case.name: case for case in cases}
    images = _place(path.parent, "imagesTr")
    for entry in entries:
        case = by_name[_case_name(entry, by_name)]
        used = {_normal(str(file)) for file in case.images}
        named = {_place(path.parent, file) for file in entry.images}
        # v1 names all channels at once, imagesTr/CASE.nii.gz
        if len(named) == 1 and next(iter(named)).rpartition("/")[0] == images:
            named = used
        if entry.label is not None:
            used = {*used, _normal(str(case.label))}
            named = {*named, _place(path.parent, entry.label)}
        if named != used:
            raise DatasetError(
                f"{path} names other files for the case {case.name} "
                f"({listed(sorted(named - used)) or 'fewer images'}) than would be used for it "
                f"({listed(sorted(used - named))}). Those of 'training' lie in imagesTr and "
                "labelsTr: correct the entries, move the files, or name files of any folder as "
                "'dataset': {CASE: {'images': [...], 'label': ...}}."
            )


def _case_name(entry: Entry, known: Mapping[str, CaseFiles]) -> str:
    """Return the case of an entry, whose image may be written with the number of its channel."""
    match = CHANNEL.fullmatch(entry.name)
    return match["case"] if match and entry.name not in known else entry.name


def _place(folder: Path, path: str) -> str:
    return _normal(path if path.startswith("/") else f"{folder}/{path.removeprefix('./')}")


def _normal(path: str) -> str:
    # most paths are normal already, and a dataset has many
    return os.path.normpath(path) if "/." in path or "//" in path else path
