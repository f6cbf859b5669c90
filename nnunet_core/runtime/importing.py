"""Imports of what a plugin names."""

from __future__ import annotations

import gc
import importlib
from typing import Any


def imported(target: str) -> Any:
    """Import and return what `package.module:Attribute` names.

    Garbage is not looked for meanwhile: what a module makes stays, and large libraries make so
    many objects that the search takes a tenth of their import.
    """
    module, _, attributes = target.partition(":")
    collecting = gc.isenabled()
    gc.disable()
    try:
        found: Any = importlib.import_module(module)
    finally:
        if collecting:
            gc.enable()
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found
