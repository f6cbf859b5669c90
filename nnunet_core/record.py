"""The record of a run: every component with its origin, settings, seed, data, libraries, device."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nnunet_core import files
from nnunet_core.registry import Resolved, owner, source_file
from nnunet_core.settings import full_settings

FILE = "run.json"
_LIBRARIES = ("nnunet-core", "torch", "numpy", "scipy", "SimpleITK", "blosc2", "batchgenerators")


class ComponentRecord(BaseModel):
    """One component of a run.

    Attributes:
        reference: Full reference.
        distribution, version: The pip package to install; None for code outside any package.
        target: Where the code was.
        settings: Every setting, defaults included.
        source_digest: Content digest of the source file, for code outside any package.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    target: str
    distribution: str | None
    version: str | None
    settings: dict[str, Any]
    source_digest: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return what decides whether two runs are the same method."""
        return {"reference": self.reference, "settings": self.settings, "source": self.source_digest}


class RunRecord(files.Document):
    """The record of one trained fold.

    Attributes:
        status: `running` until the fold is `trained`; `finished` when it is validated, too.
        dataset, dataset_digest, variant, configuration, fold, seed: What was run.
        components: {kind: record}.
        inputs_digest: Identity of everything that the training depends on; a finished fold with another digest is stale.
        model_digest: Of the model that the fold is a part of, see `models.ModelDocument.digest`.
        libraries: {distribution: version}.
        device, precision: What computed it.
        plugins: {plugin: "distribution version"} of all active plugins.
    """

    status: str
    dataset: str
    dataset_digest: str
    variant: str
    configuration: str
    fold: str
    seed: int
    inputs_digest: str
    model_digest: str
    components: dict[str, ComponentRecord]
    python: str = Field(default_factory=platform.python_version)
    libraries: dict[str, str] = Field(default_factory=dict)
    device: str = "auto"
    precision: str = "auto"
    plugins: dict[str, str] = Field(default_factory=dict)
    started: str = ""
    finished: str = ""


def component_record(resolved: Resolved) -> ComponentRecord:
    """Describe a resolved component."""
    source = source_file(resolved.component.target) if resolved.distribution is None else None
    return ComponentRecord(
        reference=resolved.reference,
        target=resolved.component.target,
        distribution=resolved.distribution,
        version=resolved.version,
        settings=full_settings(resolved),
        source_digest=files.file_digest(Path(source)) if source else None,
    )


def code_identity(function: Callable[..., Any]) -> list[str | None]:
    """Return what changes when a function may do something else: where it is defined, not where it is inherited.

    Returns:
        Its full name, the version of the distribution that it belongs to, and the digest of the file that defines it.
    """
    plain = inspect.unwrap(function)
    source = source_file(plain.__module__)
    digest = files.file_digest(Path(source)) if source else None
    return [f"{plain.__module__}.{plain.__qualname__}", owner(plain.__module__)[1], digest]


def library_versions() -> dict[str, str]:
    """Return {distribution: version} of the libraries that numbers depend on."""
    installed = {str(d.name).lower(): d.version for d in metadata.distributions()}
    return {name: installed[name.lower()] for name in _LIBRARIES if name.lower() in installed}


def identity(components: Mapping[str, ComponentRecord]) -> str:
    """Return 16 hexadecimal digits that identify a choice of components with all their settings."""
    return files.digest({kind: record.identity() for kind, record in components.items()})
