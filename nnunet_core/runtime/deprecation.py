"""Names of the public interface that were renamed: the old ones work for one more API, with a
warning.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from nnunet_core.errors import RenamedWarning


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module whose old names lead to new ones.

        __getattr__ = renamed(__name__, {"Old": "nnunet_core.contracts.loss:New"})

    Args:
        module: That had the names.
        names: {old name: "module:New"}.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 (it becomes that of the module)
        if name not in names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        place, _, new = names[name].partition(":")
        warnings.warn(
            f"{module}.{name} is now {place}.{new}; the old name works until the next API of "
            "nnunet-core",
            RenamedWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(place), new)

    return __getattr__
