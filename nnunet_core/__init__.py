"""The core of nnunet: what plugin authors import.

Importing this package is cheap on purpose (no NumPy, no torch): it is what every hook module does
at start-up.
"""

from nnunet_core.registry.components import Component, Variant
from nnunet_core.registry.hookspecs import hookimpl

__all__ = ["Component", "Variant", "__version__", "hookimpl"]

__version__ = "0.1.0"
