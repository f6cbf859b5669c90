"""The plugin `models`: models of other frameworks, made into ours, and plans of other datasets."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_planners() -> list[Component]:
    """Return the planner that copies plans."""
    return [
        Component(
            "copied",
            "nnunet_builtin.models.copied.planner:CopiedPlans",
            "the plans of another dataset (source), as weights that were trained with them need",
        )
    ]


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
