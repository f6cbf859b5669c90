"""Making a package from answers, and taking a newer template into one without losing what its
author wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from packaging.version import Version

from nnunet_builtin.authoring.answers import FILE, Answers, Origin, read_origin
from nnunet_builtin.authoring.merging import has_marks, merged
from nnunet_builtin.authoring.rendering import rendered
from nnunet_core import __version__
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below

State = Literal["added", "updated", "merged", "conflict", "removed", "kept"]


@dataclass(frozen=True)
class Change:
    """What an upgrade does to one file.

    Attributes:
        path: In the package, with `/`.
        state: `added`, `updated` (nobody had edited it), `merged` (both changes are in it),
            `conflict` (both changed the same lines, which stand between marks), `removed`, or
            `kept`: it stays as its author left it, though the template has changed.
        text: What is written; None removes the file, or leaves it.
        conflicts: Places between marks.
    """

    path: str
    state: State
    text: str | None = None
    conflicts: int = 0


def make(folder: Path, answers: Answers) -> list[str]:
    """Write a package into a new folder, whole or not at all; return the paths of its files.

    Raises:
        StorageError: The folder exists, or cannot be written.
    """
    texts = rendered(answers)
    with files.atomic_folder(folder) as temporary:
        for path, text in texts.items():
            files.write_text(temporary.joinpath(*PurePosixPath(path).parts), text)
        Origin(answers=answers, files=texts).write(temporary / FILE)
    return sorted(texts)


def changes(folder: Path, kinds: Iterable[str] = ()) -> tuple[Origin, list[Change]]:
    """Return what an upgrade of a package does, and its new answers; nothing is written.

    Args:
        folder: Of the package.
        kinds: That it gets in addition.

    Raises:
        UsageError: It is no package of ours, a newer nnunet-core made it, or a file has marks of an
            earlier upgrade.
        StorageError: A file cannot be read.
    """
    origin = read_origin(folder)
    if Version(origin.nnunet_core) > Version(__version__):
        raise UsageError(
            f"nnunet-core {origin.nnunet_core} made {folder}; {__version__} is installed. Run: pip "
            f"install --upgrade 'nnunet-core>={origin.nnunet_core}'"
        )
    answers = origin.answers.with_kinds(kinds)
    new = rendered(answers)
    found = []
    for path in dict.fromkeys([*new, *origin.files]):
        change = _change(folder, path, origin.files.get(path), new.get(path))
        if change is not None:
            found.append(change)
    return Origin(answers=answers, files=new), found


def apply(folder: Path, origin: Origin, found: Iterable[Change]) -> None:
    """Write what `changes` returned; the answers last, so that an upgrade that was stopped can be
    done again.

    Raises:
        StorageError: A file cannot be written.
    """
    for change in found:
        path = _place(folder, change.path)
        if change.text is not None:
            files.write_text(path, change.text)
        elif change.state == "removed":
            path.unlink(missing_ok=True)
    origin.write(folder / FILE)


def _change(folder: Path, path: str, base: str | None, new: str | None) -> Change | None:
    """Return what happens to a file that was rendered as `base`, and is as `new` now; None where
    nothing does.
    """
    mine = _read(_place(folder, path))
    if new in (base, mine):
        return None
    if new is None:
        return Change(path, "removed" if mine == base else "kept")
    if mine is None:
        return Change(path, "added", new) if base is None else Change(path, "kept")
    if mine == base:
        return Change(path, "updated", new)
    if has_marks(mine):
        raise UsageError(
            f"{folder / path} has the marks of an earlier upgrade ('<<<<<<< yours'). Decide there "
            "which lines stay, remove the marks, and run the command again."
        )
    text, conflicts = merged(base or "", mine, new)
    return Change(path, "conflict" if conflicts else "merged", text, conflicts)


def _place(folder: Path, path: str) -> Path:
    """Return where a file of a package lies; its answers cannot lead out of the folder."""
    return below(folder, *path.split("/"))


def _read(path: Path) -> str | None:
    """Return the text of a file, None without one."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} cannot be read as text: {error}") from error
