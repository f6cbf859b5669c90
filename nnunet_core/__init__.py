"""The core of nnunet: what plugin authors import, and what programs use that predict.

Importing this package is cheap on purpose (no NumPy, no torch): it is what every hook module does
at start-up. What needs them is imported when it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from nnunet_core.registry.components import Component, Variant
from nnunet_core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from nnunet_core.prediction.library import load_model
    from nnunet_core.store.probabilities import read_probabilities

__all__ = ["Component", "Variant", "__version__", "hookimpl", "load_model", "read_probabilities"]

__version__ = "0.1.0"

_LATER = {
    "load_model": "nnunet_core.prediction.library",
    "read_probabilities": "nnunet_core.store.probabilities",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_LATER[name]), name)
