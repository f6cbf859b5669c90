"""The plugin `variants`: the commands that list, show and compare variants."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_HERE = "nnunet_builtin.variants.commands"


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component("variants list", f"{_HERE}:list_variants", "List every variant."),
        Component(
            "variants show",
            f"{_HERE}:show",
            "Show what a variant, or a TOML file of one, is made of.",
        ),
        Component(
            "variants diff",
            f"{_HERE}:diff",
            "Compare two variants: components, settings and defaults that differ.",
        ),
    ]
