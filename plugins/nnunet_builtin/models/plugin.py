"""The plugin `models`: models of other frameworks, made into ours."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the command."""
    return [
        Component(
            "models import",
            "nnunet_builtin.models.commands:import_models",
            "Make models of nnU-Net v1 and v2 into ours: zips or folders.",
        )
    ]
