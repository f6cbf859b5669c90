"""Names and endings of files: plain, so that nothing is read or written outside its folder."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from nnunet_core.errors import DatasetError, StorageError

_ENDING = r"\.[A-Za-z0-9.]+"
_UNSHOWN = {"Cc", "Cs", "Zl", "Zp"}  # controls, bytes that are no UTF-8, ends of lines
_PLAIN = "a plain name: no '/', no '\\', no control characters, not '.' or '..'"


def is_plain(name: str) -> bool:
    """Return whether a name means a file or folder directly below another one, and can be shown."""
    if name in {"", ".", ".."} or "/" in name or "\\" in name:
        return False
    if name.isascii():
        return name.isprintable()
    return not _UNSHOWN & {unicodedata.category(letter) for letter in name}


def _checked(name: str) -> str:
    if not is_plain(name):
        raise ValueError(f"must be {_PLAIN}")
    return name


#: A name in a file of ours that may become a part of a path.
PlainName = Annotated[str, AfterValidator(_checked)]
#: The ending of a file's name in a file of ours.
Ending = Annotated[str, Field(pattern=f"^{_ENDING}$")]


def below(folder: Path, *names: str) -> Path:
    """Return the path of a file or folder below a folder; whatever is written under a name that
    comes from somewhere else is written here.

    Args:
        folder: Where it lies.
        names: Of the folders on the way, and its own.

    Raises:
        StorageError: A name is not plain: it could lead out of the folder.
    """
    for name in names:
        if not is_plain(name):
            raise StorageError(
                f"{name!r} cannot be the name of a file in {folder}, since it may lie elsewhere. "
                f"Allowed is {_PLAIN}. Rename it where it comes from, then run the command again."
            )
    return folder.joinpath(*names)


def checked_ending(ending: object, source: object) -> str:
    """Return the ending of files that a dataset or model names.

    Raises:
        DatasetError: It is no text of the form `.nii.gz`.
    """
    if not isinstance(ending, str) or not re.fullmatch(_ENDING, ending):
        raise DatasetError(
            f"{source} has {ending!r} as an ending of file names. Allowed is a dot, then letters, "
            "digits and dots: '.nii.gz'. Correct the entry."
        )
    return ending
