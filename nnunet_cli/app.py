"""The typer app: one function per command; only the command that is asked for is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from nnunet_cli.completion import value_command, wants_value, words_before_cursor
from nnunet_core import __version__
from nnunet_core.errors import PluginError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.needs import check_needs
from nnunet_core.runtime.importing import imported

#: What the groups of our own commands are about.
GROUPS = {
    "dataset": "Raw datasets.",
    "models": "Trained models.",
    "plugins": "Plugins and components.",
    "variants": "Variants: bundles of components and settings.",
    "benchmark": "Variants compared over datasets, folds and seeds.",
}
_LENIENT = {"ignore_unknown_options": True, "allow_extra_args": True}
_EPILOG = "Every command takes --no-plugin NAME (block a plugin) and --debug (show tracebacks)."


def build_app(registry: Registry, arguments: Sequence[str]) -> typer.Typer:
    """Return the command line with the built-in commands and those of plugins.

    Args:
        registry: Where plugin commands come from.
        arguments: What the user typed; only the command named there is imported.
    """
    app = _typer(
        "nnU-Net, the self-configuring method for medical image segmentation.",
        epilog=_EPILOG,
        add_completion=True,
    )
    app.callback()(_root)
    groups = {name: _typer(line) for name, line in GROUPS.items()}
    typed = words_before_cursor()
    value_only = typed is not None and wants_value(typed)
    words = [word for word in (arguments if typed is None else typed) if not word.startswith("-")]
    for name, (target, line) in commands(registry).items():
        parts = name.split()
        if len(parts) > 1 and parts[0] not in groups:
            groups[parts[0]] = _typer(f"Commands of plugins: {parts[0]}.")
        parent, asked = groups[parts[0]] if len(parts) > 1 else app, words[: len(parts)] == parts
        if asked and value_only:
            parent.command(parts[-1], context_settings=_LENIENT)(value_command())
            continue
        function = _load(target, registry) if asked else _not_asked
        parent.command(parts[-1], help=None if asked else line, short_help=line)(function)
    for name, group in groups.items():
        app.add_typer(group, name=name)
    return app


def _typer(line: str, **options: Any) -> typer.Typer:
    return typer.Typer(
        help=line,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **{"add_completion": False, **options},
    )


def commands(registry: Registry) -> dict[str, tuple[str, str]]:
    """Return {command: (target, one line)}; `group name` is a sub-command of a group.

    A plugin's command of a name that is taken, by another command or as a group, is called
    `plugin/name`.
    """
    found: dict[str, tuple[str, str]] = {}
    for resolved in registry.components("command"):
        name, line = resolved.component.name, resolved.component.summary
        if not resolved.is_own:
            line = f"{line} ({resolved.distribution} {resolved.version})"
        if _taken(name, found):
            name = resolved.reference
        found[name] = (resolved.component.target, line)
    return found


def _taken(name: str, found: Mapping[str, object]) -> bool:
    """Return whether a command of this name exists, or a group, or a command in the place of its
    group.
    """
    group = name.partition(" ")[0]
    heads = {other.partition(" ")[0] for other in found}
    return name in found or (name == group and name in heads) or (name != group and group in found)


def _load(target: str, registry: Registry) -> Callable[..., Any]:
    check_needs(each for each in registry.components("command") if each.component.target == target)
    try:
        found: Callable[..., Any] = imported(target)
        return found
    except Exception as error:
        raise PluginError(
            f"The command {target} cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def _not_asked() -> None:
    """Stand in for a command whose help is not shown."""


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nnunet {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version
