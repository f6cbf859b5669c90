"""The plugin `sharing`: commands that take trained models elsewhere and bring them in."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_COMMANDS = {
    "models export": (
        "export_model",
        "Write a trained model to one zip for others, without anything of the cases.",
    ),
    "models install": (
        "install_model",
        "Install a model that 'models export' wrote: a file, or an address.",
    ),
    "models download": ("download_model", "List published models, or download and import one."),
    "models onnx": ("write_onnx", "Write the network of a fold as ONNX, for other programs."),
}


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(name, f"nnunet_builtin.sharing.commands:{target}", line)
        for name, (target, line) in _COMMANDS.items()
    ]
