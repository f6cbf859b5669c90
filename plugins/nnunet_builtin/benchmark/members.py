"""The variants of a benchmark, resolved: what a command line says to make each, and what identifies
its code.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nnunet_builtin.benchmark.matrix import Bench, Entry
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.needs import check_needs
from nnunet_core.registry.provenance import component_record
from nnunet_core.runtime import files
from nnunet_core.stages.method import Method, choose


@dataclass(frozen=True)
class Member:
    """A variant of the benchmark, resolved.

    Attributes:
        name: In bench.toml.
        entry: Its table there.
        method: What it stands for.
        settings: {kind: {field: value}}, those of the whole benchmark included.
    """

    name: str
    entry: Entry
    method: Method
    settings: Mapping[str, Mapping[str, object]]

    def options(self, kinds: Iterable[str] = RUN_KINDS) -> list[str]:
        """Return the words that make the method on a command line that takes these kinds."""
        words = [word for each in self.entry.variant for word in ("--variant", each)]
        chosen = self.entry.choices()
        words += [word for kind in kinds if kind in chosen for word in (f"--{kind}", chosen[kind])]
        for kind in (kind for kind in kinds if kind in self.settings):
            for name, value in self.settings[kind].items():
                # a text, too: 1.0 without quotes would be a number
                words += ["--set", f"{kind}.{name}={json.dumps(value)}"]
        return words

    def identity(self, kinds: Iterable[str]) -> dict[str, str]:
        """Return {kind: digest of its component: reference, settings, version and code}."""
        return {kind: self._identities[kind] for kind in kinds}

    @functools.cached_property
    def _identities(self) -> dict[str, str]:
        # of a preprocessor that only the plans will name
        settings = {"preprocessor": files.digest(dict(self.method.preprocessor_settings))}
        return settings | {kind: _identity(r) for kind, r in self.method.components.items()}


def _identity(resolved: Resolved) -> str:
    """Identify a component. Of ours, the version says nothing that the code does not say better."""
    record = component_record(resolved)
    version = None if resolved.is_own else record.version
    return files.digest([record.identity(), version, record.code_digest])


def members(bench: Bench, registry: Registry) -> dict[str, Member]:
    """Resolve the variants of a benchmark.

    Raises:
        NnunetError: One of them names what does not exist, needs what is not installed, or has a
            wrong setting.
    """
    found = {}
    for name, entry in bench.variants.items():
        settings = bench.settings_of(entry)
        variant = entry.variant or ["default"]
        method = choose(registry, variant, entry.choices(), settings)
        method.name  # noqa: B018 - finds a wrong setting
        check_needs(method.components.values())
        found[name] = Member(name, entry, method, settings)
    return found
