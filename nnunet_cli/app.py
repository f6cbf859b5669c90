"""The typer app: one function per command; only the command that is asked for is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from nnunet_core import __version__
from nnunet_core.errors import PluginError
from nnunet_core.registry import Registry

#: {command: ("module:function", one line)}; names with a space are sub-commands of a group.
COMMANDS = {
    "run": ("nnunet_cli.run:run", "Plan, preprocess, train, validate and evaluate; optionally predict a folder."),
    "plan": ("nnunet_cli.steps:plan", "Make and show the plans of a dataset."),
    "splits": ("nnunet_cli.splits:splits", "Show the folds of a dataset, or make them."),
    "preprocess": ("nnunet_cli.steps:preprocess", "Prepare the cases of a dataset for training."),
    "train": ("nnunet_cli.steps:train", "Train and validate folds."),
    "predict": ("nnunet_cli.predict:predict", "Predict a folder of images with a trained model."),
    "evaluate": ("nnunet_cli.predict:evaluate", "Compare predicted with reference label maps."),
    "dataset verify": ("nnunet_cli.datasets:verify", "Check a raw dataset and report every problem."),
    "dataset convert": (
        "nnunet_cli.datasets:convert",
        "Convert a dataset: decathlon, v1, v2, plain folders or DICOM to v2 or v1.",
    ),
    "dataset list": ("nnunet_cli.datasets:list_datasets", "List the datasets of the workspace."),
    "models list": ("nnunet_cli.models:list_models", "List the trained models of the workspace."),
    "plugins list": ("nnunet_cli.plugins:list_plugins", "List every plugin and component."),
    "plugins show": ("nnunet_cli.plugins:show", "Show one component with its settings."),
    "doctor": ("nnunet_cli.doctor:doctor", "Show versions, devices, folders and problems of this installation."),
}
GROUPS = {"dataset": "Raw datasets.", "models": "Trained models.", "plugins": "Plugins and components."}
_EPILOG = "Every command takes --no-plugin NAME (block a plugin) and --debug (show tracebacks)."


def build_app(registry: Registry, arguments: Sequence[str]) -> typer.Typer:
    """Return the command line with the built-in commands and those of plugins.

    Args:
        registry: Where plugin commands come from.
        arguments: What the user typed; only the command named there is imported.
    """
    app = _typer("nnU-Net, the self-configuring method for medical image segmentation.", epilog=_EPILOG)
    app.callback()(_root)
    groups = {name: _typer(line) for name, line in GROUPS.items()}
    words = [word for word in arguments if not word.startswith("-")]
    for name, (target, line) in {**COMMANDS, **_plugin_commands(registry)}.items():
        parts = name.split()
        function = _load(target) if words[: len(parts)] == parts else _not_asked
        parent = groups[parts[0]] if len(parts) > 1 else app
        parent.command(parts[-1], help=line if function is _not_asked else None, short_help=line)(function)
    for name, group in groups.items():
        app.add_typer(group, name=name)
    return app


def _typer(line: str, **options: Any) -> typer.Typer:
    return typer.Typer(
        help=line,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


def _plugin_commands(registry: Registry) -> Mapping[str, tuple[str, str]]:
    """Return the commands of plugins that do not hide a built-in one; the full name `plugin/name` always works."""
    taken = {name.split()[0] for name in COMMANDS}
    return {
        resolved.reference if resolved.name in taken else resolved.name: (
            resolved.component.target,
            f"{resolved.component.summary} ({resolved.distribution} {resolved.version})",
        )
        for resolved in registry.components("command")
    }


def _load(target: str) -> Callable[..., Any]:
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise PluginError(f"The command {target} cannot be loaded: {type(error).__name__}: {error}") from error


def _not_asked() -> None:
    """Stand in for a command whose help is not shown."""


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nnunet {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    del version
