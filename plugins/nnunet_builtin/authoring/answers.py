"""What the author answered: name and kinds of a package, checked; and the file that keeps them."""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from packaging.version import Version
from pydantic import AfterValidator, BaseModel, ConfigDict

from nnunet_builtin.authoring.kinds import KINDS
from nnunet_core import __version__
from nnunet_core.errors import UsageError, nearest
from nnunet_core.registry.discovery import PluginInfo
from nnunet_core.runtime.files import Document

FILE = ".nnunet-plugin.json"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST = 40


class Answers(BaseModel):
    """What a package is made from.

    Attributes:
        name: Of the distribution, its plugin and its components.
        kinds: What it holds, in the order of `KINDS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kinds: tuple[str, ...]

    @property
    def module(self) -> str:
        """Name of the import package."""
        return self.name.replace("-", "_")

    def with_kinds(self, further: Iterable[str]) -> Answers:
        """Return the answers with more kinds. Raises UsageError, see `checked_kinds`."""
        return Answers(name=self.name, kinds=checked_kinds([*self.kinds, *further]))


def _version(text: str) -> str:
    Version(text)  # raises a ValueError
    return text


class Origin(Document):
    """The file of answers: what the package was made from, and what was made.

    Attributes:
        nnunet_core: Version that rendered the files.
        files: {path in the package: text as it was rendered}; what an upgrade compares with.
    """

    schema_version: Literal[1] = 1
    nnunet_core: Annotated[str, AfterValidator(_version)] = __version__
    answers: Answers
    files: dict[str, str]


def checked_name(name: str, plugins: Iterable[PluginInfo] = ()) -> str:
    """Return a name that a package can have.

    Args:
        name: What the author wants.
        plugins: That are installed.

    Raises:
        UsageError: It has another form, or is the name of a plugin or of a module that exists.
    """
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(module):
        raise UsageError(
            f"'{name}' cannot be the name of a package: it has small letters, digits, and '-' or "
            f"'_' between them, begins with a letter, has at most {_LONGEST} characters and is no "
            "word of Python. For example: topk-variant."
        )
    for info in plugins:
        if info.name == name:
            raise UsageError(
                f"A plugin '{name}' is installed ({info.distribution or info.module}); of two with "
                "one name neither would load. Choose another name, or uninstall that one."
            )
    if importlib.util.find_spec(module) is not None:
        raise UsageError(
            f"A Python module '{module}' is installed, which the package would hide. Choose "
            "another name."
        )
    return name


def checked_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return kinds, each once, in the order of `KINDS`; `image-format` is `image_format`.

    Raises:
        UsageError: There is no such kind.
    """
    asked = {kind.strip().replace("-", "_") for kind in kinds}
    for kind in sorted(asked - set(KINDS)):
        raise UsageError(
            f"There is no template for the kind '{kind}'.{nearest(kind, KINDS)} "
            f"Kinds: {', '.join(KINDS)}."
        )
    return tuple(kind for kind in KINDS if kind in asked)


def read_origin(folder: Path) -> Origin:
    """Return the answers of a package, checked as when it was made.

    Raises:
        UsageError: The folder is no package that 'plugins new' made.
        StorageError: Its file of answers is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise UsageError(
            f"{folder} has no {FILE}: 'nnunet plugins new' did not make it. Give the folder of a "
            "package that it made."
        )
    origin = Origin.read(path)
    checked_kinds(origin.answers.kinds)
    if not _NAME.fullmatch(origin.answers.name):
        raise UsageError(f"{path} names the package {origin.answers.name!r}, which is no name.")
    return origin
