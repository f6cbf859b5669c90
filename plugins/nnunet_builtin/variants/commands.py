"""`nnunet variants`: what there is, what is in one, what differs between two."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from nnunet_builtin.variants import differences
from nnunet_builtin.variants.differences import Value, reference_of
from nnunet_cli import options as o
from nnunet_cli.completion import component_completion
from nnunet_cli.reporter import out
from nnunet_core.errors import printable
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.needs import unmet
from nnunet_core.registry.variants import find, is_file
from nnunet_core.stages.method import Method, choose

_OF_PLANS = "the one that the plans name"
VariantArgument = Annotated[
    str,
    typer.Argument(
        help="name, plugin/name or a TOML file",
        show_default=False,
        autocompletion=component_completion("variant"),
    ),
]


def list_variants(context: typer.Context, as_json: o.JsonOption = False) -> None:
    """List every variant: name, package, what it chooses and sets."""
    rows: list[dict[str, Any]] = [
        {
            "name": variant.name,
            "reference": f"{info.name}/{variant.name}",
            "distribution": info.distribution,
            "version": info.version,
            "summary": variant.summary,
            "components": variant.choices(),
            "settings": variant.settings,
        }
        for info, variant in o.registry_of(context).variants()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("name", "package", "summary", "components", "settings")
    for row in rows:
        package = f"{row['distribution']} {row['version']}"
        chosen = ", ".join(f"{kind} {name}" for kind, name in row["components"].items())
        values = ", ".join(_assignments(row["settings"]))
        table.add_row(row["name"], package, row["summary"], chosen, values)
    out().print(table)


def show(context: typer.Context, variant: VariantArgument, as_json: o.JsonOption = False) -> None:
    """Show what a variant is made of: every component with its package, what the variant sets, and
    what is missing.
    """
    registry = o.registry_of(context)
    method, record = choose(registry, variant), find(registry, variant)
    rows = [_component(method, kind) for kind in RUN_KINDS]
    if as_json:
        content = {
            "name": record.name,
            "origin": _origin(registry, variant),
            "summary": record.summary,
            "components": rows,
            "settings": record.settings,
        }
        typer.echo(json.dumps(content, indent=1))
        return
    typer.echo(printable(f"variant {record.name}\nfrom    {_origin(registry, variant)}"))
    if record.summary:
        typer.echo(printable(f"summary {record.summary}"))
    for row in rows:
        mark = "  as default" if row["is_default"] else ""
        reference = row["reference"] or _OF_PLANS
        typer.echo(f"  {row['kind']:13} {reference}  {row['package'] or ''}".rstrip() + mark)
        for need in row["missing"]:
            typer.echo(f"  {'':13} {need}")
    for line in _assignments(record.settings):
        typer.echo(printable(f"  {line}"))


def diff(
    context: typer.Context,
    variant: VariantArgument,
    other: VariantArgument,
    as_json: o.JsonOption = False,
) -> None:
    """Compare two variants: components that differ, and settings that differ, with the defaults
    that count where a variant sets nothing.
    """
    registry = o.registry_of(context)
    one, two = choose(registry, variant), choose(registry, other)
    components = list(differences.components(one, two))
    settings = list(differences.settings(one, two))
    if as_json:
        content = {
            "results": [one.name, two.name],
            "components": {kind: [left, right] for kind, left, right in components},
            "settings": {name: [_json(left), _json(right)] for name, left, right in settings},
        }
        typer.echo(json.dumps(content, indent=1))
    elif not components and not settings:
        typer.echo(printable(f"{variant} and {other} are the same method"))
    else:
        table = Table("", variant, other)
        for kind, left, right in components:
            table.add_row(kind, left or _OF_PLANS, right or _OF_PLANS)
        for name, first, second in settings:
            table.add_row(name, _shown(first), _shown(second))
        table.add_section()
        table.add_row("results folder", one.name, two.name)
        out().print(table)


def _origin(registry: Registry, reference: str) -> str:
    if is_file(reference):
        return reference
    info, _ = registry.variant(reference)
    return f"{info.distribution} {info.version}"


def _component(method: Method, kind: str) -> dict[str, Any]:
    reference = reference_of(method, kind)
    default = reference_of(choose(method.registry), kind)
    resolved = method.components.get(kind)
    package = f"{resolved.distribution} {resolved.version}" if resolved else None
    return {
        "kind": kind,
        "reference": reference,
        "package": "no package" if resolved and not resolved.distribution else package,
        "is_default": reference == default,
        "missing": unmet(resolved.component, resolved.distribution) if resolved else [],
    }


def _assignments(settings: Any) -> list[str]:
    return [
        f"{kind}.{name}={json.dumps(value)}"
        for kind, values in settings.items()
        for name, value in values.items()
    ]


def _json(value: Value | None) -> dict[str, Any] | None:
    return None if value is None else {"value": value.value, "chosen": value.chosen}


def _shown(value: Value | None) -> str:
    if value is None:
        return "no such setting"
    return json.dumps(value.value) + ("" if value.chosen else "  (default)")
