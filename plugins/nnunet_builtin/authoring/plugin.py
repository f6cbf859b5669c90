"""The plugin `authoring`: commands that make a package of a plugin, and bring it up to date."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_HERE = "nnunet_builtin.authoring.commands"


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component("plugins new", f"{_HERE}:new", "Make a package of a plugin, with its tests."),
        Component(
            "plugins upgrade",
            f"{_HERE}:upgrade",
            "Take what is new in the template into a package that 'plugins new' made.",
        ),
    ]
