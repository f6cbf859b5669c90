"""Options that several commands share, declared once: one argument of a command may stand for
several options.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Group:
    """Marks an argument that is made of options: `runtime: Annotated[Runtime,
    Group(make_runtime)]`.

    Attributes:
        join: Takes the options as typed parameters, as typer reads them, and returns the argument.
    """

    join: Callable[..., Any]


def grouped(command: Callable[..., _Result]) -> Callable[..., _Result]:
    """Return a command in whose signature, the one that typer reads, each group is replaced by its
    options.
    """
    groups: dict[str, Group] = {}
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        group = next(
            (mark for mark in get_args(parameter.annotation) if isinstance(mark, Group)), None
        )
        if group is None:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            groups[name] = group
            shown.extend(_options(group))

    @functools.wraps(command)
    def with_options(**given: Any) -> _Result:
        for name, group in groups.items():
            chosen = {option.name: given.pop(option.name) for option in _options(group)}
            given[name] = grouped(group.join)(**chosen)
        return command(**given)

    with_options.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    with_options.__annotations__ = {option.name: option.annotation for option in shown}
    return with_options


def _options(group: Group) -> list[inspect.Parameter]:
    # a group may be made of groups
    options = inspect.signature(grouped(group.join), eval_str=True).parameters.values()
    return [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
