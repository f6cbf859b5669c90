"""Folders of files CASE.ext: listed by their cases, and matched with another folder."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_core.data.dataset import CaseFiles
from nnunet_core.data.unused import left_out_messages
from nnunet_core.errors import DatasetError, MissingFolderError, counted, listed, natural_order
from nnunet_core.runtime.reporting import Reporter, Silence


def without_ending(name: str, ending: str) -> str:
    """Return a file name without its ending, which may be in capitals; other names stay."""
    return name[: -len(ending)] if ending and name.lower().endswith(ending.lower()) else name


def list_files(folder: Path, ending: str, only_files: bool = False) -> dict[str, Path]:
    """Return {name without ending: path} of the files of one ending, in capitals or not, sorted;
    hidden ones are left out.

    A DICOM series is a folder with an ending; `only_files` leaves folders out. There is nothing in
    a folder that does not exist.

    Raises:
        DatasetError: Two names differ in the capitals of their ending only.
    """
    if not folder.is_dir():
        return {}
    lower, length = ending.lower(), len(ending)
    with os.scandir(folder) as entries:  # texts: paths take long to make and to sort
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(lower)
            and not entry.name.startswith(".")
            and (not only_files or entry.is_file())
        )
    found: dict[str, Path] = {}
    for name in names:
        other = found.setdefault(name[: len(name) - length], path := folder / name)
        if other is not path:
            raise DatasetError(
                f"{folder} holds {other.name} and {name}, two files of one name. Remove one."
            )
    return found


def match_folders(
    predictions: Path,
    references: Path,
    ending: str,
    allow_missing: bool = False,
    report: Reporter | None = None,
) -> list[tuple[Path, Path]]:
    """Return (prediction, reference) of two folders of label files `CASE.ext`, in natural order.

    Args:
        predictions: Folder of label files.
        references: Folder of label files.
        ending: Of the files to compare, with the leading dot; hidden files are not looked at.
        allow_missing: Leave out cases that are in one folder only, with a warning.
        report: Where warnings go.

    Raises:
        DatasetError: A folder is missing or empty, or the folders do not hold the same cases; all
            differences are told.
    """
    report = report or Silence()
    predicted, true = label_files(predictions, ending), label_files(references, ending)
    problems = []
    for folder, mine, others in ((predictions, predicted, true), (references, true, predicted)):
        if missing := sorted(others.keys() - mine.keys(), key=natural_order):
            names = listed([f"{name}{ending}" for name in missing])
            problems.append(f"{folder} lacks {counted(len(missing), 'case')}: {names}")
    both = sorted(predicted.keys() & true.keys(), key=natural_order)
    if problems and not (allow_missing and both):
        hint = (
            f" --allow-missing compares the {counted(len(both), 'case')} of both." if both else ""
        )
        raise DatasetError(
            f"Predictions and references must be the same cases. {'; '.join(problems)}. "
            f"Predict what is missing, or evaluate folders that hold the same file names.{hint}"
        )
    if problems:
        report.warning(f"{'; '.join(problems)}. Only cases of both folders are compared.")
    for message in left_out_messages(
        [CaseFiles(name, (path,)) for found in (predicted, true) for name, path in found.items()]
    ):
        report.warning(message)
    return [(predicted[name], true[name]) for name in both]


def label_files(folder: Path, ending: str) -> dict[str, Path]:
    """Return {case: label file} of a folder of label files `CASE.ext`, sorted by name.

    Raises:
        DatasetError: The folder is missing, or holds no such file.
    """
    if not folder.is_dir():
        raise MissingFolderError(folder, f"It should hold label files named CASE{ending}.")
    found = list_files(folder, ending)
    if not found:
        there = sorted((p.name for p in folder.iterdir() if p.is_file()), key=natural_order)
        raise DatasetError(
            f"{folder} holds no file ending in '{ending}', that of the dataset's labels. It holds: "
            f"{listed(there) or 'nothing'}. Choose another folder, or convert the files."
        )
    return found
