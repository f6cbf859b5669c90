"""What a user should know of the installed plugins, though all of them work."""

from __future__ import annotations

from nnunet_core.errors import printable
from nnunet_core.registry.components import API, KINDS
from nnunet_core.registry.discovery import OWN, PluginInfo, Registry

#: Every command waits for the import of all hook modules; ours need less than a tenth of it.
SLOW_SECONDS = 0.5


def remarks(registry: Registry) -> list[str]:
    """Return a line for every plugin that slows commands down, every name that is not free, and
    every component that the next core will refuse.
    """
    return [*slow_imports(registry), *_taken_names(registry), *_ageing(registry)]


def slow_imports(registry: Registry) -> list[str]:
    """Return a line for every plugin whose hook module takes long to import."""
    return [
        f"the plugin '{info.name}' took {info.seconds:.1f} s to import, and every command waits "
        f"for it: its module {printable(info.module)} should import nothing heavy. Without it: "
        f"--no-plugin {info.name}"
        for info in registry.plugins()
        if info.seconds > SLOW_SECONDS
    ]


def _taken_names(registry: Registry) -> list[str]:
    found = []
    claims: dict[tuple[str, str], list[PluginInfo]] = {}
    for kind in (*KINDS, "variant"):
        for info, record in registry.records(kind):
            claims.setdefault((kind, record.name), []).append(info)
    for (kind, name), infos in claims.items():
        full = " or ".join(f"'{info.name}/{name}'" for info in infos if info.distribution != OWN)
        if len(infos) > 1 and len(own := [info for info in infos if info.distribution == OWN]) == 1:
            found.append(
                f"the {kind} '{name}' is always '{own[0].name}/{name}'; of other plugins: {full}"
            )
        elif len(infos) > 1:
            found.append(f"the {kind} '{name}' is of several plugins; write {full}")
    return found


def _ageing(registry: Registry) -> list[str]:
    return [
        f"the {each.kind} '{each.reference}' is written for API {each.component.api} of "
        f"nnunet-core; this one has API {API}, and the next one will not serve it. Look for a new "
        f"version of {each.distribution}"
        for each in registry.components()
        if each.component.api == API - 1
    ]
