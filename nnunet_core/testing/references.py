"""What is checked: from names to subjects."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_core.contracts.abilities import CONTRACTS
from nnunet_core.errors import UnknownComponentError, nearest
from nnunet_core.registry.components import KINDS, Variant
from nnunet_core.registry.discovery import PluginInfo, Registry, Resolved
from nnunet_core.testing.check import Subject
from nnunet_core.testing.probe import Probe

#: Everything that has checks.
CHECKED = ("plugin", *KINDS, "variant", "observer")


class Finder:
    """Finds what names stand for; all of it is examined in as few processes as possible.

    Args:
        registry: None discovers what is installed.
        example: A file or folder that the components read.
        partners: {kind: reference} of what they work with.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        example: Path | None = None,
        partners: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = registry or Registry.discover()
        self.example = example
        self.partners: dict[str, Any] = dict(partners or {})
        self.probe = Probe()
        self._plugins = {info.name: info for info in self.registry.plugins()}

    def find(
        self,
        reference: str | type,
        kind: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> list[Subject]:
        """Return all of a plugin or distribution; or, where none has that name or a kind is given,
        one component or variant.

        Raises:
            UnknownComponentError: Nothing, or more than one thing, has that name.
        """
        whole = self.package(reference) if kind is None and isinstance(reference, str) else []
        return whole or [self.subject(reference, kind, settings)]

    def package(self, name: str) -> list[Subject]:
        """Return the plugins of a plugin's or distribution's name, with everything that they
        register; empty where there is none.
        """
        found = []
        for info in self._plugins.values():
            if name == info.name or _plain(name) == _plain(info.distribution or ""):
                found += [self.subject(info.name, "plugin"), *self._contents(info)]
        return found

    def subject(
        self,
        reference: str | type,
        kind: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Subject:
        """Return what a reference names, of a kind, or of the one kind that has it.

        Raises:
            UnknownComponentError: There is none, or there are several.
        """
        name = _target(reference) if isinstance(reference, type) else reference
        kind = kind or self._kind_of(name)
        subject = Subject(kind, name, self.registry, example=self.example, probe=self.probe)
        if kind in {"plugin", "observer"}:
            return replace(subject, hook_module=self._module(name))
        if kind == "variant":
            info, variant = self.registry.variant(name)
            full = f"{info.name}/{variant.name}"
            return replace(
                subject, reference=full, variant=variant, hook_module=self._module(info.name)
            )
        resolved = self.registry.resolve(kind, name).with_settings(settings or {})
        component = resolved.component
        self.probe.announce(kind, resolved.reference, component.target, component.settings)
        plugin, slash, _ = resolved.reference.partition("/")
        module = self._module(plugin) if slash else None
        return replace(
            subject,
            reference=resolved.reference,
            resolved=resolved,
            partners=self._partners(resolved),
            hook_module=module,
        )

    def _partners(self, resolved: Resolved) -> Variant:
        """Return what a component works with: the first variant of its plugin that chooses it, with
        what the user says.
        """
        plugin, _, name = resolved.reference.partition("/")
        names = {name, resolved.reference}
        for info, variant in self.registry.variants():
            if info.name == plugin and variant.choices().get(resolved.kind) in names:
                return replace(variant, **self.partners)
        return replace(Variant("default"), **self.partners)

    def _contents(self, info: PluginInfo) -> list[Subject]:
        named = self._registered()
        found = [self.subject(*each) for each in named if each[0].partition("/")[0] == info.name]
        if info.name in self.registry.hooks.observers():
            found.append(self.subject(info.name, "observer"))
        return found

    def _registered(self) -> list[tuple[str, str]]:
        """Return (plugin/name, kind) of every component and variant."""
        named = [(r.reference, r.kind) for r in self.registry.components()]
        return named + [(f"{i.name}/{v.name}", "variant") for i, v in self.registry.variants()]

    def _module(self, plugin: str) -> str:
        """Return the hook module of a plugin. Raises UnknownComponentError."""
        info = self._plugins.get(plugin)
        if info is None:
            raise UnknownComponentError(
                f"There is no plugin '{plugin}'.{nearest(plugin, self._plugins)} Plugins: "
                f"{', '.join(sorted(self._plugins))}."
            )
        return info.module.partition(":")[0]

    def _kind_of(self, reference: str) -> str:
        if ":" in reference:
            kinds = _kinds_by_methods(self.registry.resolve("class", reference).load())
        else:
            named = self._registered()
            kinds = {kind for full, kind in named if reference in {full, full.partition("/")[2]}}
        if len(kinds) == 1:
            return kinds.pop()
        if kinds:
            several = ", ".join(kind for kind in CHECKED if kind in kinds)
            raise UnknownComponentError(
                f"'{reference}' names something of several kinds: {several}. Say which one "
                "(--kind)."
            )
        raise UnknownComponentError(self._unknown(reference))

    def _unknown(self, reference: str) -> str:
        if ":" in reference:
            return (
                f"'{reference}' has the methods of no kind of component. Say which one it should "
                "be (--kind); what each needs is in the reference of contracts. Kinds: "
                f"{', '.join(CHECKED)}."
            )
        if reference in self._plugins:
            return (
                f"'{reference}' is a plugin. 'nnunet plugins list' shows the components that it "
                "registers; name one of these."
            )
        names = [resolved.component.name for resolved in self.registry.components()]
        names += [variant.name for _, variant in self.registry.variants()]
        return (
            f"There is no plugin, component or variant named '{reference}'."
            f"{nearest(reference, [*names, *self._plugins])} 'nnunet plugins list' shows all. Code "
            "of your own is named as 'package.module:Class'."
        )


def _target(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _plain(distribution: str) -> str:
    """Return the name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _kinds_by_methods(target: object) -> set[str]:
    """Return the kinds whose methods a class has; where one contract holds another, the larger."""
    if not inspect.isclass(target):
        return {"command"} if callable(target) else set()
    complete: dict[str, set[str]] = {}
    for kind, (contract, *_) in CONTRACTS.items():
        methods = {n for n, value in vars(contract).items() if n[0] != "_" and callable(value)}
        if all(hasattr(target, name) for name in methods):
            complete[kind] = methods
    return {
        kind
        for kind, methods in complete.items()
        if not any(methods < others for others in complete.values())
    }
