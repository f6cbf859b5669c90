"""The plugin `rates`: which learning rates a training can take."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the command of the range test."""
    return [
        Component(
            "find-lr",
            "nnunet_builtin.rates.commands:find_lr",
            "Raise the learning rate from batch to batch, and show how the loss answers.",
        )
    ]
