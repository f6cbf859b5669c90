"""Requirements of the packages of plugins that are not met, and who else asks for the same
package.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


@dataclass
class _Wishes:
    """What is asked of one package: {text of the requirement: packages that have it}."""

    met: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unmet: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def conflicts(packages: Iterable[str]) -> list[str]:
    """Return a line for every package that is missing, or installed in a version that one of these
    packages does not allow.

    Args:
        packages: Names of installed distributions that declare plugins.
    """
    wishes: dict[str, _Wishes] = defaultdict(_Wishes)
    for package in sorted(set(packages)):
        distribution = metadata.distribution(package)
        owner = f"{distribution.name} {distribution.version}"
        for text in distribution.requires or ():
            wanted = _needed(text)
            if wanted is not None:
                version = installed(wanted.name)
                met = version is not None and wanted.specifier.contains(version, prereleases=True)
                of = wishes[canonicalize_name(wanted.name)]
                (of.met if met else of.unmet)[f"{wanted.name}{wanted.specifier}"].append(owner)
    return [_line(name, of) for name, of in sorted(wishes.items()) if of.unmet]


def installed(name: str) -> str | None:
    """Return the version of a distribution, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _needed(text: str) -> Requirement | None:
    """Return a requirement that counts here: not one of an extra, or of another system."""
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return None  # pip would not have installed it
    return wanted if wanted.marker is None or wanted.marker.evaluate({"extra": ""}) else None


def _line(name: str, wishes: _Wishes) -> str:
    version = installed(name)
    state = "is not installed" if version is None else f"{version} is installed"
    line = f"{name} {state}; {_asked(wishes.unmet)}"
    if version is None:
        return f"{line}. Run: pip install '{next(iter(wishes.unmet))}'"
    others = f", but {_asked(wishes.met)}" if wishes.met else ""
    return (
        f"{line}{others}. Look for versions that go together (pip check), or block the plugin of "
        "one of them (--no-plugin NAME)"
    )


def _asked(wishes: dict[str, list[str]]) -> str:
    shown = (f"{' and '.join(owners)} asks for '{text}'" for text, owners in wishes.items())
    return "; ".join(shown)
