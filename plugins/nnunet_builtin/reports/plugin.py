"""The plugin `reports`: a run, a model or a dataset as one page."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands."""
    return []
