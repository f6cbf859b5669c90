"""What a component needs before it can be used: an API that the core serves, and distributions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Protocol

from nnunet_core.errors import PluginError
from nnunet_core.registry.components import API, Component


class Found(Protocol):
    """A component that was found by reference (discovery.Resolved)."""

    @property
    def kind(self) -> str:
        """One of `components.KINDS`."""
        ...

    @property
    def reference(self) -> str:
        """The full reference."""
        ...

    @property
    def component(self) -> Component:
        """The record."""
        ...

    @property
    def distribution(self) -> str | None:
        """The package that registers it."""
        ...


def check_needs(components: Iterable[Found]) -> None:
    """Raise PluginError with every need of these components that is not met, and what to do."""
    found = [
        f"The {each.kind} '{each.reference}' {need}"
        for each in components
        for need in unmet(each.component, each.distribution)
    ]
    if found:
        raise PluginError("\n".join(found))


def unmet(component: Component, distribution: str | None = None) -> list[str]:
    """Return a text for every need of a component that is not met: "needs 'monai>=1.3', ...".

    Args:
        component: The record.
        distribution: The package that registers it, for what to install.
    """
    api = _unserved(component.api, distribution or "its package")
    return [*([api] if api else []), *unmet_requirements(component.requires)]


def unmet_requirements(requires: Sequence[str]) -> list[str]:
    """Return a text for every distribution that is missing, or is there in a version that is not
    allowed.
    """
    return [problem for text in requires if (problem := _missing(text))]


def _unserved(api: int, package: str) -> str:
    if api > API:
        return (
            f"needs API {api} of nnunet-core; the one that is installed has API {API}. Run: pip "
            "install --upgrade nnunet-core"
        )
    if api < API - 1:
        return (
            f"was made for API {api} of nnunet-core; the one that is installed serves {API - 1} "
            f"and {API}. Run: pip install --upgrade {package}"
        )
    return ""


def _missing(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(text)
    except InvalidRequirement as error:
        return (
            f"requires '{text}', which is no requirement: {error}. Allowed: 'name', 'name>=1.2' "
            "and so on."
        )
    if wanted.marker is not None and not wanted.marker.evaluate():
        return ""
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"needs '{text}', which is not installed. Run: pip install '{text}'"
    if wanted.specifier.contains(version, prereleases=True):
        return ""
    return f"needs '{text}'; {version} is installed. Run: pip install '{text}'"
