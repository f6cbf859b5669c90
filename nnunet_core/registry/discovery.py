"""The registry: discover plugins, list, resolve, block, and say where each component comes from."""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from importlib.machinery import ModuleSpec
from typing import Any

from nnunet_core.errors import NnunetError, PluginError, UnknownComponentError, UsageError, nearest
from nnunet_core.registry.components import KINDS, Component, Variant
from nnunet_core.registry.hooks import Hooks, component_hook
from nnunet_core.registry.needs import check_needs
from nnunet_core.runtime.importing import imported

ENTRY_POINT_GROUP = "nnunet_plugins"
#: The distribution whose components' names nobody can take: our own.
OWN = "nnunet-core"
DENY_VARIABLE = "NNUNET_DISABLE_PLUGINS"
ALLOW_VARIABLE = "NNUNET_PLUGINS"

#: How a reference to a variant ends that is a file, not a name.
FILE_ENDING = ".toml"

_VARIANT = "variant"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_COMMAND = re.compile(rf"{_NAME.pattern}( {_NAME.pattern})?")
_DOTTED = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
TARGET = re.compile(f"{_DOTTED}:{_DOTTED}")


@dataclass(frozen=True)
class PluginInfo:
    """One row of `nnunet plugins list`: a plugin that loaded, is blocked or is broken.

    Attributes:
        name: Entry-point name.
        module: What the entry point names.
        distribution, version: Of the pip package that declares it.
        status: `active`, `blocked` or `broken`.
        error: Why it is broken; empty otherwise.
        cause: The exception behind `error`, with its traceback.
        seconds: That the import of its hook module took.
    """

    name: str
    module: str
    distribution: str | None
    version: str | None
    status: str
    error: str = ""
    cause: BaseException | None = field(default=None, compare=False, repr=False)
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Resolved:
    """A component found by reference, with its origin.

    Attributes:
        kind: One of `components.KINDS`.
        reference: The full reference: `plugin/name`, or `package.module:Attribute` for unregistered
            code.
        component: The record. Its settings hold the overrides of the user too.
        distribution, version: Of the pip package that the code comes from; None for code outside
            any package.
    """

    kind: str
    reference: str
    component: Component
    distribution: str | None = None
    version: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether our own distribution registers it."""
        return self.distribution == OWN

    @property
    def name(self) -> str:
        """The short name for people: without plugin, and for unregistered code the attribute."""
        return self.reference.rpartition(":")[2].rpartition("/")[2]

    def with_settings(self, overrides: Mapping[str, Any]) -> Resolved:
        """Return a copy whose settings are updated by `overrides`."""
        settings = {**self.component.settings, **overrides}
        return replace(self, component=replace(self.component, settings=settings))

    def load(self) -> Any:
        """Import and return the target (a class).

        Raises:
            PluginError: The module cannot be imported or has no such attribute; or the component
                needs what is not installed.
        """
        check_needs([self])
        try:
            return imported(self.component.target)
        except Exception as error:
            origin = f" of {self.distribution} {self.version}" if self.distribution else ""
            raise PluginError(
                f"The {self.kind} '{self.reference}'{origin} cannot be loaded: importing "
                f"'{self.component.target}' failed with {type(error).__name__}: {error}"
            ) from error


class Registry:
    """All plugins that are installed, and the components they register.

    Attributes:
        hooks: Of the plugins; observers are told of a training through them.
    """

    def __init__(self) -> None:
        self.hooks = Hooks()
        self._plugins: dict[str, PluginInfo] = {}
        self._records: dict[str, list[tuple[PluginInfo, Any]]] = {
            kind: [] for kind in (*KINDS, _VARIANT)
        }

    @classmethod
    def discover(cls, deny: Iterable[str] = ()) -> Registry:
        """Load every plugin of the entry-point group that is not blocked.

        Args:
            deny: Plugin names not to load, beyond those of NNUNET_DISABLE_PLUGINS.
        """
        registry = cls()
        denied = _names_in(DENY_VARIABLE) | set(deny)
        allowed = _names_in(ALLOW_VARIABLE)
        claims: dict[str, dict[PluginInfo, metadata.EntryPoint]] = {}
        origins: dict[metadata.Distribution, tuple[str, str]] = {}
        for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
            dist = entry.dist
            if dist and dist not in origins:  # each of them parses a file
                origins[dist] = dist.name, dist.version
            distribution, version = origins[dist] if dist else (None, None)
            info = PluginInfo(entry.name, entry.value, distribution, version, status="active")
            claims.setdefault(entry.name, {})[info] = entry
        for name in sorted(claims, key=lambda n: (not _own(claims[n]), n)):
            own = _own(claims[name])
            blocked = name in denied or bool(allowed and name not in allowed and not own)
            # nobody can take the name of a plugin of ours, or stop it by claiming that name
            registry._admit(own or claims[name], blocked)
        return registry

    def _admit(self, claims: Mapping[PluginInfo, metadata.EntryPoint], blocked: bool) -> None:
        """Load the plugin that these entries claim to be, or record why not."""
        info, entry = next(iter(claims.items()))
        if len(claims) > 1:
            owners = " and ".join(sorted(f"{i.distribution} {i.version}" for i in claims))
            error = (
                f"{owners} both register a plugin named '{info.name}'; neither is loaded. "
                "Uninstall one of them."
            )
            info = replace(info, status="broken", error=error, distribution=None, version=None)
        elif blocked:
            info = replace(info, status="blocked")
        else:
            started = time.perf_counter()
            try:
                self.register(entry.load(), info)
            # a stranger's code may raise anything; it becomes a row
            except (Exception, SystemExit) as error:  # noqa: BLE001
                kind = "" if isinstance(error, NnunetError) else f"{type(error).__name__}: "
                info = replace(info, status="broken", error=f"{kind}{error}", cause=error)
            info = replace(info, seconds=time.perf_counter() - started)
        self._plugins[info.name] = info

    def register(self, plugin: object, info: PluginInfo) -> None:
        """Register one plugin object; its records are checked before any of them is admitted.

        Raises:
            PluginError: A hook does not exist, raises, or returns something else than records.
        """
        try:
            self.hooks.register(plugin, info.name)
            found = {
                kind: _checked(kind, self.hooks.records(plugin, kind), info)
                for kind in self._records
            }
        except Exception:
            self.hooks.forget(plugin)
            raise
        for kind, records in found.items():
            self._records[kind].extend((info, record) for record in records)
        self._plugins[info.name] = info

    def plugins(self) -> list[PluginInfo]:
        """Return a row per plugin: active, blocked and broken ones."""
        return list(self._plugins.values())

    def components(self, kind: str | None = None) -> list[Resolved]:
        """Return the registered components of one kind, or of all kinds in life-cycle order."""
        kinds = KINDS if kind is None else (kind,)
        return [_resolved(each, *record) for each in kinds for record in self._records[each]]

    def variants(self) -> list[tuple[PluginInfo, Variant]]:
        """Return every variant with its plugin."""
        return self.records(_VARIANT)

    def records(self, kind: str) -> list[tuple[PluginInfo, Any]]:
        """Return every record of a kind of component, or of "variant", with its plugin."""
        return list(self._records[kind])

    def resolve(self, kind: str, reference: str) -> Resolved:
        """Find a component that the user, or code that is installed, names: by `name`,
        `plugin/name` or `package.module:Attribute`, which is imported.

        A built-in name always means the built-in component. Another bare name works while it is
        unique.

        Raises:
            UnknownComponentError: Nothing, or more than one thing, has that name; the message lists
                what exists.
            PluginError: The reference names a plugin that is broken.
        """
        if ":" in reference:
            return _unregistered(kind, reference)
        code = " Code of your own is named as 'package.module:Attribute'."
        return _resolved(kind, *self._find(kind, reference, code))

    def registered(self, kind: str, reference: object, source: str, otherwise: str) -> Resolved:
        """Find a component that a file names: by `name` or `plugin/name` alone, of what installed
        plugins register. Files come from anybody; nothing that they name is imported here.

        Args:
            kind: Of the component.
            reference: What the file says, of any type.
            source: File and entry, for messages.
            otherwise: What to do where it names something else, for messages.

        Raises:
            UnknownComponentError: It has another form, or nothing has that name.
            PluginError, UsageError: The plugin is broken, or blocked.
        """
        if not isinstance(reference, str) or ":" in reference or not reference.isprintable():
            names = ", ".join(sorted(record.name for _, record in self._records[kind]))
            raise UnknownComponentError(
                f"{source} is {reference!r}, of which nothing was imported. A file may only name "
                f"what an installed plugin registers (name or plugin/name): {names}. {otherwise}"
            )
        try:
            return _resolved(kind, *self._find(kind, reference, f" {otherwise}"))
        except NnunetError as error:
            raise type(error)(f"{source}: {error}") from error

    def variant(self, reference: str) -> tuple[PluginInfo, Variant]:
        """Find a variant by `name` or `plugin/name`; the rules are those of `resolve`."""
        return self._find(_VARIANT, reference)

    def _find(self, kind: str, reference: str, further: str = "") -> tuple[PluginInfo, Any]:
        plugin, slash, name = reference.rpartition("/")
        if slash:
            self._require_active(plugin, reference)
        records = self._records[kind]
        hits = [row for row in records if row[1].name == name and plugin in {"", row[0].name}]
        own = [row for row in hits if row[0].distribution == OWN]
        if len(hits) == 1 or own:
            return (own or hits)[0]
        if not hits:
            names = [record.name for _, record in records]
            raise UnknownComponentError(self._unknown(kind, reference, names) + further)
        owners = ", ".join(f"'{i.name}/{name}' ({i.distribution} {i.version})" for i, _ in hits)
        raise UnknownComponentError(
            f"The {kind} '{reference}' is registered by more than one plugin: {owners}. Write one "
            "of these full names."
        )

    def _require_active(self, plugin: str, reference: str) -> None:
        info = self._plugins.get(plugin)
        if info is None:
            known = ", ".join(sorted(self._plugins))
            raise UnknownComponentError(
                f"'{reference}' names the plugin '{plugin}', which is not "
                f"installed.{nearest(plugin, self._plugins)} Installed plugins: {known}."
            )
        if info.status == "broken":
            raise PluginError(
                f"'{reference}' is of the plugin '{plugin}', which is broken: {info.error}"
            ) from info.cause
        if info.status == "blocked":
            raise UsageError(
                f"'{reference}' is of the plugin '{plugin}', which is blocked. "
                f"Remove it from --no-plugin / {DENY_VARIABLE}, or add it to {ALLOW_VARIABLE}."
            )

    def _unknown(self, kind: str, reference: str, names: list[str]) -> str:
        broken = [info.name for info in self._plugins.values() if info.status == "broken"]
        hint = f" These plugins are broken and register nothing: {', '.join(broken)}."
        return (
            f"There is no {kind} named '{reference}'.{nearest(reference, names)} Available: "
            f"{', '.join(sorted(names)) or 'none'}.{hint if broken else ''}"
        )


def _own(
    claims: Mapping[PluginInfo, metadata.EntryPoint],
) -> dict[PluginInfo, metadata.EntryPoint]:
    """Return those that our own distribution declares."""
    return {info: entry for info, entry in claims.items() if info.distribution == OWN}


def _names_in(variable: str) -> set[str]:
    return {name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()}


def _resolved(kind: str, info: PluginInfo, component: Component) -> Resolved:
    reference = f"{info.name}/{component.name}"
    return Resolved(kind, reference, component, info.distribution, info.version)


def _checked(kind: str, found: Iterable[object], info: PluginInfo) -> list[Component | Variant]:
    """Return the records of a plugin's hook, after a check."""
    subject = f"{component_hook(kind)} of plugin '{info.name}' returned"
    wanted = Variant if kind == _VARIANT else Component
    word, allowed = wanted.__name__.lower(), _COMMAND if kind == "command" else _NAME
    records: dict[str, Component | Variant] = {}
    for record in found:
        if not isinstance(record, wanted):
            raise PluginError(f"{subject} {record!r}; it must return {wanted.__name__}s.")
        target = f" and target {record.target!r}" if isinstance(record, Component) else ""
        lazy = isinstance(record, Variant) or TARGET.fullmatch(record.target)
        if not allowed.fullmatch(record.name) or not lazy:
            raise PluginError(
                f"{subject} a {word} with name {record.name!r}{target}; allowed are names of "
                "letters, digits, '_', '-', '.' and targets 'package.module:Attribute'."
            )
        if record.name in records:
            raise PluginError(f"{subject} two {word}s named '{record.name}'.")
        if isinstance(record, Component):
            _check_stated_needs(record, subject)
        elif record.name.endswith(FILE_ENDING):
            raise PluginError(
                f"{subject} a variant named '{record.name}'; what ends in {FILE_ENDING} is a file."
            )
        records[record.name] = record
    return list(records.values())


def _check_stated_needs(record: Component, subject: str) -> None:
    requires, api = record.requires, record.api
    texts = isinstance(requires, tuple | list) and all(isinstance(text, str) for text in requires)
    if not texts or type(api) is not int:
        raise PluginError(
            f"{subject} '{record.name}' with requires={requires!r} and api={api!r}; requires is a "
            "tuple of texts, ('monai>=1.3',), and api a whole number."
        )


def _unregistered(kind: str, reference: str) -> Resolved:
    """Resolve `package.module:Attribute`, code that no plugin registers."""
    if not TARGET.fullmatch(reference):
        raise UnknownComponentError(
            f"'{reference}' is not a reference to a {kind}. Allowed: name, plugin/name or "
            "package.module:Attribute."
        )
    resolved = Resolved(
        kind, reference, Component(reference.rpartition(":")[2].rpartition(".")[2], reference)
    )
    resolved.load()
    distribution, version = owner(reference.partition(":")[0])
    return replace(resolved, distribution=distribution, version=version)


def owner(module: str) -> tuple[str | None, str | None]:
    """Return distribution and version of the package that holds a module; None when no package
    does.
    """
    package, path = re.split("[.:]", module)[0], tuple(sys.path)
    owners = _plugin_distributions(path).get(package) or _distributions(path).get(package)
    if not owners:
        return None, None
    return owners[0], metadata.version(owners[0])


@functools.lru_cache(maxsize=1)
def _plugin_distributions(_: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Return {package of a plugin's hook module: distributions that declare it}; it is quick."""
    found: dict[str, list[str]] = {}
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        if entry.dist is not None:
            found.setdefault(re.split("[.:]", entry.value)[0], []).append(entry.dist.name)
    return found


@functools.lru_cache(maxsize=1)
def _distributions(_: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Return {module: distributions that hold it}, found once for a path: it takes a second."""
    return metadata.packages_distributions()


def source_file(target: str) -> str | None:
    """Return the file of a target's module, for provenance, without importing it; None for modules
    without a file.
    """
    module = target.partition(":")[0]
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None)
    name, places, found = "", None, None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        found = _find_spec(name, places)
        if found is None:
            return None
        places = found.submodule_search_locations
    return found.origin if found and found.has_location else None


def _find_spec(name: str, places: Sequence[str] | None) -> ModuleSpec | None:
    """Return where a module lies; an editable installation has a finder of its own."""
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    specs = (find(name, places) for find in finders if find is not None)
    return next((spec for spec in specs if spec is not None), None)
