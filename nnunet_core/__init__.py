"""The core of nnunet: what plugin authors import, and what programs use that predict.

Importing this package is cheap on purpose (no NumPy, no torch): it is what every hook module does
at start-up. What needs them is imported when it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from nnunet_core.registry.components import API, Component, Variant
from nnunet_core.registry.hookspecs import hookimpl
from nnunet_core.runtime.deprecation import renamed

if TYPE_CHECKING:
    from nnunet_core.stages.library import load_model
    from nnunet_core.store.probabilities import read_probabilities

__all__ = [
    "API",
    "Component",
    "Variant",
    "__version__",
    "hookimpl",
    "load_model",
    "read_probabilities",
]

__version__ = "0.1.0"

_LATER = {
    "load_model": "nnunet_core.stages.library",
    "read_probabilities": "nnunet_core.store.probabilities",
}


#: {old name: "module:New"}: served, with a warning, until the next API.
_RENAMED: dict[str, str] = {}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        return renamed(__name__, _RENAMED)(name)
    return getattr(importlib.import_module(_LATER[name]), name)
