"""The plugin `diagnosis`: the command `doctor`."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the command."""
    return [
        Component(
            "doctor",
            "nnunet_builtin.diagnosis.commands:doctor",
            "Show versions, devices, folders and problems of this installation.",
        )
    ]
