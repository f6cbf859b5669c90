"""`nnunet plugins`: what is installed, and what each component can be set to."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from nnunet_cli import options as o
from nnunet_cli.completion import complete_kind, complete_reference
from nnunet_core.errors import UsageError, nearest
from nnunet_core.registry.components import KINDS, RUN_KINDS, Variant
from nnunet_core.registry.discovery import PluginInfo, Registry, Resolved
from nnunet_core.registry.remarks import remarks

_WIDTH = 100


KindOption = Annotated[
    str | None,
    typer.Option(
        help="variant, planner, network, loss, ...",
        autocompletion=complete_kind,
        show_default=False,
    ),
]


def list_plugins(
    context: typer.Context,
    kind: KindOption = None,
    timing: Annotated[
        bool, typer.Option("--timing", help="Show how long the import of each hook module took.")
    ] = False,
    as_json: o.JsonOption = False,
) -> None:
    """List every component, variant and observer: kind, name, plugin, version, summary; then every
    plugin. Imports hook modules only.
    """
    registry = o.registry_of(context)
    components = _component_rows(registry, _checked_kind(kind, (*KINDS, "variant", "observer")))
    if as_json:
        plugins = _plugin_rows(registry, timing)
        found = {"plugins": plugins, "components": components, "notes": remarks(registry)}
        typer.echo(json.dumps(found, indent=1))
        return
    columns = ("kind", "name", "plugin", "version", "summary")
    rows = [{**row, "version": row["version"] or "-"} for row in components]
    _print_table([dict(zip(columns, map(str.upper, columns), strict=True)), *rows], columns)
    typer.echo("")
    if timing:
        for info in sorted(registry.plugins(), key=lambda info: -info.seconds):
            typer.echo(f"{1000 * info.seconds:6.1f} ms  {info.name} ({_origin(info)})")
    elif kind is None:
        for info in registry.plugins():
            error = f" - {info.error}" if info.error else ""
            typer.echo(f"plugin {info.name} ({_origin(info)}): {info.status}{error}")
        for line in remarks(registry):
            typer.echo(f"note: {line}")


def show(
    context: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="name, plugin/name or package.module:Class",
            show_default=False,
            autocompletion=complete_reference,
        ),
    ],
    kind: KindOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Show one component or variant: package, file, contract, and its settings with type, value and
    what they do. --kind is needed where several kinds have that name.
    """
    from nnunet_cli.describing import described
    from nnunet_core.testing.references import Finder

    registry = o.registry_of(context)
    subject = Finder(registry).subject(reference, _checked_kind(kind))
    if subject.resolved is None:
        info, variant = registry.variant(subject.reference)
        if as_json:
            row = _variant_row(info, variant)
            chosen = {"choices": variant.choices(), "settings": variant.settings}
            typer.echo(json.dumps({**row, **chosen}, indent=1))
        else:
            _show_variant(info, variant)
    elif as_json:
        typer.echo(json.dumps(described(subject.resolved), indent=1))
    else:
        _show_component(subject.resolved, described(subject.resolved))


def _show_component(resolved: Resolved, found: Mapping[str, Any]) -> None:
    kind, origin = resolved.kind, _package(resolved.distribution, resolved.version)
    _show_origin(f"{kind} {resolved.reference}", f"{origin}  {found['target']}", found["summary"])
    typer.echo(f"file     {found['file'] or '-'}\ncontract {found['contract']}")
    if found["requires"]:
        typer.echo(f"needs    {', '.join(found['requires'])}")
    if found["documentation"]:
        typer.echo(f"\n{textwrap.fill(found['documentation'], _WIDTH)}\n")
    # only what a run chooses has settings that its command takes
    option = f"--set {kind}." if kind in RUN_KINDS else ""
    for setting in found["settings"]:
        typer.echo(f"  {option}{setting['name']}={json.dumps(setting['value'])}")
        about = ". ".join(text for text in (setting["type"], setting["help"]) if text)
        typer.echo(textwrap.indent(textwrap.fill(about, _WIDTH - 6), " " * 6))


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
    typer.echo(f"from     {origin}")
    if summary:
        typer.echo(f"summary  {summary}")


def _package(distribution: str | None, version: str | None) -> str:
    return f"{distribution or 'no package'} {version or ''}".rstrip()


def _origin(info: PluginInfo) -> str:
    return _package(info.distribution, info.version) if info.distribution else info.module


def _checked_kind(kind: str | None, kinds: Sequence[str] = (*KINDS, "variant")) -> str | None:
    """Return a kind of component or `variant`; None stays. Raises UsageError."""
    if kind is not None and kind not in kinds:
        raise UsageError(
            f"There is no kind '{kind}'.{nearest(kind, kinds)} Kinds: {', '.join(kinds)}."
        )
    return kind


def _print_table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> None:
    """Print columns that are as wide as their longest cell; the last one ends where it ends."""
    *first, last = columns
    widths = {column: max(len(row[column]) for row in rows) for column in first}
    for row in rows:
        cells = [row[column].ljust(width) for column, width in widths.items()]
        typer.echo("  ".join([*cells, row[last]]))


def _plugin_rows(registry: Registry, timing: bool) -> list[dict[str, Any]]:
    keys = ["name", "module", "distribution", "version", "status", "error"]
    keys += ["seconds"] * timing
    return [{key: getattr(info, key) for key in keys} for info in registry.plugins()]


def _component_rows(registry: Registry, kind: str | None) -> list[dict[str, Any]]:
    """Return a row for each component, variant and observer of a kind, or of every kind."""
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
    rows += [_variant_row(info, variant) for info, variant in registry.variants()]
    observers = registry.hooks.observers()
    rows += [_row(i, "observer", i.name, "") for i in registry.plugins() if i.name in observers]
    return [row for row in rows if kind in (None, row["kind"])]


def _variant_row(info: PluginInfo, variant: Variant) -> dict[str, Any]:
    return _row(info, "variant", variant.name, variant.summary)


def _row(info: PluginInfo, kind: str, name: str, summary: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "plugin": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "summary": summary,
    }
