"""Python's collector of cycles, and when it has nothing to find."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def uncollected(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let the collector rest while a function makes many objects that all stay: it would walk over
    them again and again, a quarter of the time for 20,000 cases.
    """

    @functools.wraps(function)
    def run(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **options)
        finally:
            if was_on:
                gc.enable()

    return run
