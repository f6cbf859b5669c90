"""The catalogue of published models: facts and addresses, no file of theirs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nnunet_core.errors import UsageError, nearest
from nnunet_core.runtime.files import Document
from nnunet_core.runtime.names import PlainName

_Address = Annotated[str, Field(pattern=r"^https?://[!-~]+$")]


class Published(BaseModel):
    """One published model.

    Attributes:
        name: How it is asked for.
        framework: That made it.
        description: What it does.
        channels: Of the images, in the order of the files.
        labels: What it finds.
        licence: What its publishers say.
        about: Where they say it.
        files: Addresses of its archives; each holds configurations or folds of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    framework: Literal["nnU-Net v1", "nnU-Net v2"]
    description: str
    channels: tuple[str, ...]
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    licence: str
    about: _Address
    files: Annotated[tuple[_Address, ...], Field(min_length=1)]


class Catalogue(Document):
    """The file catalogue.json of this package."""

    schema_version: Literal[1] = 1
    models: tuple[Published, ...]

    def find(self, name: str) -> Published:
        """Return a model by its name, or by the number that it begins with: 'Task004', '4', '291'.

        Raises:
            UsageError: There is none, or several.
        """
        exact = [model for model in self.models if model.name == name]
        found = exact or [m for m in self.models if _number(m.name) == _number(name) != ""]
        if len(found) != 1:
            names = [model.name for model in self.models]
            raise UsageError(
                f"The catalogue has no model '{name}'.{nearest(name, names, most=3)} 'nnunet "
                "models download' without a name lists all. A model that is not in it: nnunet "
                "models install ADDRESS, or download it and run 'nnunet models import FILE'."
            )
        return found[0]


@cache
def catalogue() -> Catalogue:
    """Read the catalogue."""
    return Catalogue.read(Path(__file__).with_name("catalogue.json"))


def _number(name: str) -> str:
    """Return the number of a task or dataset without zeros: '4' of 'Task004_Hippocampus'."""
    first = name.partition("_")[0]
    digits = first.removeprefix("Task").removeprefix("Dataset")
    return digits.lstrip("0") if digits.isdigit() else ""
