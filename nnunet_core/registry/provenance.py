"""Where components come from: what decides whether two runs are the same method."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from nnunet_core.registry.discovery import Resolved, owner
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.settings import full_settings
from nnunet_core.runtime import files

_LIBRARIES = ("nnunet-core", "torch", "numpy", "scipy", "SimpleITK", "blosc2", "batchgenerators")


def component_record(resolved: Resolved) -> ComponentRecord:
    """Describe a resolved component."""
    local = resolved.distribution is None
    return ComponentRecord(
        reference=resolved.reference,
        target=resolved.component.target,
        distribution=resolved.distribution,
        version=resolved.version,
        settings=full_settings(resolved),
        source_digest=_source_digest(resolved.component.target) if local else None,
    )


def code_identity(function: Callable[..., Any]) -> list[str | None]:
    """Return what changes when a function may do something else: where it is defined, not where it is inherited.

    Returns:
        Its full name, the version of the distribution that it belongs to, and the digest of the file that defines it.
    """
    plain = inspect.unwrap(function)
    module = plain.__module__
    return [f"{module}.{plain.__qualname__}", owner(module)[1], _source_digest(module)]


def _source_digest(target: str) -> str | None:
    """Return the digest of the file that holds a target's module; None for modules without a file."""
    source = getattr(importlib.import_module(target.partition(":")[0]), "__file__", None)
    return files.file_digest(Path(source)) if source else None


def library_versions() -> dict[str, str]:
    """Return {distribution: version} of the libraries that numbers depend on."""
    installed = {str(d.name).lower(): d.version for d in metadata.distributions()}
    return {name: installed[name.lower()] for name in _LIBRARIES if name.lower() in installed}


def components_digest(components: Mapping[str, ComponentRecord]) -> str:
    """Return 16 hexadecimal digits that identify a choice of components with all their settings."""
    return files.digest({kind: record.identity() for kind, record in components.items()})
