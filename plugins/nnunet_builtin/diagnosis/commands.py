"""`nnunet doctor`: versions, devices, folders, plugins, and everything that is wrong with them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from nnunet_builtin.diagnosis import machine
from nnunet_builtin.diagnosis.conflicts import conflicts
from nnunet_builtin.diagnosis.probing import Probe, probe
from nnunet_cli import options as o
from nnunet_core.errors import printable
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.registry.needs import unmet
from nnunet_core.registry.provenance import library_versions
from nnunet_core.registry.remarks import remarks
from nnunet_core.store.workspace import Workspace


def doctor(
    context: typer.Context,
    workspace: o.WorkspaceOption = None,
    import_limit: Annotated[
        float,
        typer.Option(
            min=0.1, help="Seconds that the import of one component of another package may take."
        ),
    ] = 60.0,
    as_json: o.JsonOption = False,
) -> None:
    """Show versions, devices, folders and plugins of this installation, and its problems; exit code
    1 when there are any.

    Components of other packages are imported, in a process of their own.
    """
    registry = o.registry_of(context)
    found = diagnosis(registry, o.workspace_of(workspace), import_limit)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        for line in _lines(found):
            typer.echo(printable(line))
    if found["problems"]:
        raise typer.Exit(1)


def diagnosis(registry: Registry, workspace: Workspace, import_limit: float) -> dict[str, Any]:
    """Return what the command shows, as JSON values."""
    usable = [(r, unmet(r.component, r.distribution)) for r in registry.components()]
    tried = [(r.kind, r.reference) for r, needs in usable if not r.is_own and not needs]
    probes = list(probe(tried, import_limit))
    packages = [i.distribution for i in registry.plugins() if i.distribution and _takes_part(i)]
    places, shared = machine.places(workspace), machine.shared_memory()
    problems = [f"plugin {i.name}: {i.error}" for i in registry.plugins() if i.status == "broken"]
    problems += conflicts(packages)
    problems += [f"the {p.kind} '{p.reference}': {p.error}" for p in probes if p.error]
    problems += [
        f"{each['folder']} cannot be written" for each in places.values() if not each["writable"]
    ]
    notes = remarks(registry)
    notes += [f"the {r.kind} '{r.reference}' {need}" for r, needs in usable for need in needs]
    notes += [f"the {p.kind} '{p.reference}': {text}" for p in probes for text in p.warnings]
    notes += filter(None, [machine.shared_memory_remark(shared)])
    return {
        **machine.system(),
        "libraries": library_versions(),
        "devices": machine.devices(),
        "default": machine.chosen(),
        "folders": places,
        "shared_memory": shared,
        "plugins": [_row(info, probes) for info in registry.plugins()],
        "problems": problems,
        "notes": notes,
    }


def _takes_part(info: PluginInfo) -> bool:
    return info.status == "active"


def _row(info: PluginInfo, probes: list[Probe]) -> dict[str, Any]:
    keys = ("name", "module", "distribution", "version", "status", "error")
    slowest = [p.seconds for p in probes if p.reference.startswith(f"{info.name}/")]
    return {
        **{key: getattr(info, key) for key in keys},
        "import_seconds": round(info.seconds, 3),
        "component_seconds": round(sum(slowest), 3) if slowest else None,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"python     {found['python']} on {found['platform']}, {found['cores']} cores, "
        f"{found['usable_cores']} usable"
    ]
    lines += [f"{name:<10} {version}" for name, version in found["libraries"].items()]
    for row in found["devices"]:
        facts = f", {row['model']}, {row['memory_gb']} GB" if "model" in row else ""
        lines.append(f"device     {row['name']}{facts}: {', '.join(row['precisions'])}")
    default = found["default"]
    lines.append(
        f"by default {default['device']}, {default['precision']}, {default['threads']} threads, "
        f"{default['loaders']} loaders"
    )
    for name, each in found["folders"].items():
        state = "" if each["exists"] else "  (made on first writing)"
        writable = "" if each["writable"] else "  NOT WRITABLE"
        lines.append(f"{name:<12} {each['folder']}  {each['free_gb']} GB free{writable}{state}")
    if shared := found["shared_memory"]:
        lines.append(
            f"shared memory  {shared['total_gb']} GB, {shared['free_gb']} GB free (loaders use it)"
        )
    lines += [_plugin_line(row) for row in found["plugins"]]
    lines += [f"note: {text}" for text in found["notes"]]
    lines += [f"PROBLEM: {text}" for text in found["problems"]]
    return [*lines, "" if found["problems"] else "no problems"]


def _plugin_line(row: dict[str, Any]) -> str:
    origin = f"{row['distribution']} {row['version']}" if row["distribution"] else row["module"]
    line = f"plugin     {row['name']} ({origin}): {row['status']}"
    if row["status"] == "active":
        line += f", imported in {row['import_seconds']:.3f} s"
    if row["component_seconds"] is not None:
        line += f", its components in {row['component_seconds']:.1f} s"
    return f"{line} {row['error']}".rstrip()
