"""Imports of what a plugin names."""

from __future__ import annotations

import importlib
from typing import Any

from nnunet_core.runtime.collecting import collector_rests


def imported(target: str) -> Any:
    """Import and return what `package.module:Attribute` names."""
    module, _, attributes = target.partition(":")
    with collector_rests():  # a tenth of the time of a large library
        found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found
