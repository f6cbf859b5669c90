"""What was taken from which address: a file that changes there is noticed, and nothing is taken
twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from nnunet_builtin.sharing.manifest import Digest
from nnunet_core.errors import StorageError
from nnunet_core.runtime import locks
from nnunet_core.runtime.files import Document
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.models import FILE as MODEL_FILE

FOLDER = "downloads"
FILE = "pins.json"


class Pin(BaseModel):
    """What an address gave.

    Attributes:
        digest: Of the file.
        models: DATASET/VARIANT/CONFIGURATION that were made of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Digest
    models: tuple[str, ...] = ()


class Pins(Document):
    """The file downloads/pins.json of a results folder: {address: pin}."""

    schema_version: Literal[1] = 1
    files: dict[str, Pin] = Field(default_factory=dict)


def shown(address: str) -> str:
    """Return an address without a password that stands in it."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def check(address: str, digest: str, results: Path) -> None:
    """Compare the digest of a file with the one that its address gave the first time.

    Raises:
        StorageError: It is another file.
    """
    known = _read(results).files.get(shown(address))
    if known is not None and known.digest != digest:
        raise StorageError(
            f"{shown(address)} is another file than when it was first taken from there: {digest} "
            f"instead of {known.digest}. It was not used. Ask whoever publishes it; if it was "
            f"replaced on purpose, delete its entry from {_path(results)} and run the command "
            "again."
        )


def note(address: str, digest: str, models: Sequence[str], results: Path) -> None:
    """Remember what an address gave, and what was made of it."""
    path = _path(results)
    with locks.held(path.with_name(f"{FILE}.lock"), "noting a digest", Silence()):
        known = _read(results).files
        pin = Pin(digest=digest, models=tuple(models))
        Pins(files={**known, shown(address): pin}).write(path)


def models_of(address: str, results: Path) -> tuple[str, ...]:
    """Return the models that were made of what an address gave, if all of them are still there."""
    pin = _read(results).files.get(shown(address))
    if pin is None or not all((results / name / MODEL_FILE).is_file() for name in pin.models):
        return ()
    return pin.models


def _read(results: Path) -> Pins:
    path = _path(results)
    return Pins.read(path) if path.is_file() else Pins()


def _path(results: Path) -> Path:
    return results / FOLDER / FILE
