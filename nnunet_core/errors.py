"""The exceptions that users see: what was wrong, what was received, what is allowed, what to do
next.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_SHOWN = 10


class NnunetError(Exception):
    """Work that failed for a reason the user can act on. The command line exits with code 1."""

    exit_code = 1


class UsageError(NnunetError):
    """A request that cannot be right: unknown name, wrong type, missing folder. The command line
    exits with code 2.
    """

    exit_code = 2


class SettingsError(UsageError):
    """A setting that the component does not have, or a value of the wrong type."""


class UnknownComponentError(UsageError):
    """A reference that names no component, or more than one."""


class PluginError(NnunetError):
    """A plugin that cannot be loaded, or that returned something else than its hook asks for."""


class DatasetError(NnunetError):
    """A raw dataset that breaks its own dataset.json, or images that do not belong together."""


class MissingFolderError(DatasetError):
    """A folder, or a file, that was given and that is not there. The command line exits with code
    2.
    """

    exit_code = 2

    def __init__(self, folder: object, hint: str = "", kind: str = "folder") -> None:
        super().__init__(f"The {kind} {folder} does not exist.{hint and ' '}{hint}")


class ImageError(DatasetError):
    """An image file that cannot be read or written, or whose content cannot be used."""


class StorageError(NnunetError):
    """A file of the workspace that cannot be written or that is not what its record says."""


class TrainingError(NnunetError):
    """A training that cannot go on."""


class StoppedError(NnunetError):
    """Work that was stopped by a signal, with everything saved. The command line exits with 128 +
    the signal's number.
    """

    exit_code = 130

    def __init__(self, message: str, signal_number: int | None) -> None:
        super().__init__(message)
        self.exit_code = 128 + (signal_number or 2)


class RenamedWarning(DeprecationWarning):
    """A name of `nnunet_core` that goes away with the next API; the message says the new one."""


def listed(names: Sequence[str]) -> str:
    """Return the first ten names for a message, and how many more there are; a name that would
    break the line is quoted.
    """
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(n if n.isprintable() else repr(n) for n in names[:_SHOWN]) + more


def natural_order(name: str) -> tuple[list[int | str], str]:
    """Return the key that sorts names as people do: case_2 before case_10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if odd % 2 else part.lower() for odd, part in enumerate(parts)], name


def printable(text: str) -> str:
    """Return a text for a terminal: what would control it, or turn the direction of writing, is
    shown as its code instead, since names come from files of strangers.
    """
    if text.isprintable():
        return text
    plain = (c if c.isprintable() or c in "\n\t\xa0" else ascii(c)[1:-1] for c in text)
    return "".join(plain)


def counted(number: int, one: str, several: str = "") -> str:
    """Return "1 case" or "2 cases" for a message; what is not made by an s is given as `several`
    ("case is", "cases are").
    """
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def nearest(name: str, allowed: Iterable[str], most: int = 1) -> str:
    """Return " Did you mean 'x'?" for the closest allowed names, or an empty string."""
    matches = difflib.get_close_matches(name, list(allowed), n=most, cutoff=0.5)
    shown = " or ".join(f"'{match}'" for match in matches)
    return f" Did you mean {shown}?" if matches else ""
