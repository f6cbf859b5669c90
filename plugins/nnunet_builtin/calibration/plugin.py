"""The plugin `calibration`: how sure a model is, compared with how often it is right."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the command that fits a temperature."""
    return [
        Component(
            "models calibrate",
            "nnunet_builtin.calibration.commands:calibrate",
            "Fit a temperature of the probabilities on the cross-validation.",
        )
    ]
