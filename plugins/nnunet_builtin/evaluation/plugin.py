"""The plugin `evaluation`: the command that compares predicted with reference label maps."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the command."""
    return [
        Component(
            "evaluate",
            "nnunet_builtin.evaluation.commands:evaluate",
            "Compare predicted with reference label maps.",
        )
    ]
