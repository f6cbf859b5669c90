"""The conformance kit: run the contract of a component, and tools to test a plugin.

    from nnunet_core.testing import parametrize_with_checks

    @parametrize_with_checks(["mypkg/my_focal"])
    def test_contract(component, check):
        check(component)

Importing this package imports neither pytest nor NumPy nor torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_core.testing.check import Check, Row, Subject
    from nnunet_core.testing.doors import check_component, checks_of, parametrize_with_checks
    from nnunet_core.testing.toys import Toys

__all__ = [
    "Check",
    "Row",
    "Subject",
    "Toys",
    "check_component",
    "checks_of",
    "parametrize_with_checks",
]

_LATER = {
    "Check": "check",
    "Row": "check",
    "Subject": "check",
    "Toys": "toys",
    "check_component": "doors",
    "checks_of": "doors",
    "parametrize_with_checks": "doors",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
