"""`nnunet plugins`: what is installed, and what each component can be set to."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any

import typer

from nnunet_cli import options as o
from nnunet_core.errors import UsageError, nearest
from nnunet_core.registry.components import KINDS, RUN_KINDS, Variant
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.registry.remarks import remarks


def list_plugins(context: typer.Context, as_json: o.JsonOption = False) -> None:
    """List every plugin and every component: kind, name, plugin, version, summary. Imports hook
    modules only.
    """
    registry = o.registry_of(context)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "plugins": _plugin_rows(registry),
                    "components": _component_rows(registry),
                    "notes": remarks(registry),
                },
                indent=1,
            )
        )
        return
    columns = ("kind", "name", "plugin", "version", "summary")
    rows = [{**row, "version": row["version"] or "-"} for row in _component_rows(registry)]
    widths = {
        column: max([len(column), *(len(row[column]) for row in rows)]) for column in columns[:-1]
    }
    for row in ({column: column.upper() for column in columns}, *rows):
        typer.echo(
            "  ".join(
                [*(row[column].ljust(width) for column, width in widths.items()), row["summary"]]
            )
        )
    typer.echo("")
    for info in registry.plugins():
        origin = f"{info.distribution} {info.version}" if info.distribution else info.module
        typer.echo(
            f"plugin {info.name} ({origin}): {info.status}"
            + (f" - {info.error}" if info.error else "")
        )
    for line in remarks(registry):
        typer.echo(f"note: {line}")


def show(
    context: typer.Context,
    kind: Annotated[
        str, typer.Argument(help="variant, planner, network, loss, ...", show_default=False)
    ],
    name: Annotated[
        str, typer.Argument(help="name, plugin/name or package.module:Class", show_default=False)
    ],
) -> None:
    """Show one variant or component: where it comes from, what it is, and its settings with their
    values.
    """
    from nnunet_core.registry.settings import full_settings

    kinds = (*KINDS, "variant")
    if kind not in kinds:
        raise UsageError(
            f"There is no kind '{kind}'.{nearest(kind, kinds)} Kinds: {', '.join(kinds)}."
        )
    registry = o.registry_of(context)
    if kind == "variant":
        _show_variant(*registry.variant(name))
        return
    resolved = registry.resolve(kind, name)
    origin = f"{_package(resolved.distribution, resolved.version)}  {resolved.component.target}"
    _show_origin(f"{kind} {resolved.reference}", origin, resolved.component.summary)
    if kind != "command":
        # only what a run chooses has settings that its command takes
        option = f"--set {kind}." if kind in RUN_KINDS else ""
        for setting, value in full_settings(resolved).items():
            typer.echo(f"  {option}{setting}={json.dumps(value)}")
        documentation = inspect.getdoc(resolved.load()) or ""
        typer.echo(f"\n{documentation}" if documentation else "")


def _show_variant(info: PluginInfo, variant: Variant) -> None:
    """Show what a variant chooses, as the options that do the same."""
    origin = _package(info.distribution, info.version)
    _show_origin(f"variant {info.name}/{variant.name}", origin, variant.summary)
    for kind, reference in variant.choices().items():
        typer.echo(f"  --{kind} {reference}")
    for kind, values in variant.settings.items():
        for setting, value in values.items():
            typer.echo(f"  --set {kind}.{setting}={json.dumps(value)}")


def _show_origin(title: str, origin: str, summary: str) -> None:
    typer.echo(title)
    typer.echo(f"from    {origin}")
    if summary:
        typer.echo(f"summary {summary}")


def _package(distribution: str | None, version: str | None) -> str:
    return f"{distribution or 'no package'} {version or ''}".rstrip()


def _plugin_rows(registry: Registry) -> list[dict[str, Any]]:
    keys = ("name", "module", "distribution", "version", "status", "error")
    return [{key: getattr(info, key) for key in keys} for info in registry.plugins()]


def _component_rows(registry: Registry) -> list[dict[str, Any]]:
    rows = [
        {
            "kind": resolved.kind,
            "name": resolved.component.name,
            "plugin": resolved.reference.partition("/")[0],
            "distribution": resolved.distribution,
            "version": resolved.version,
            "summary": resolved.component.summary,
        }
        for resolved in registry.components()
    ]
    rows += [
        {
            "kind": "variant",
            "name": variant.name,
            "plugin": info.name,
            "distribution": info.distribution,
            "version": info.version,
            "summary": variant.summary,
        }
        for info, variant in registry.variants()
    ]
    return rows
