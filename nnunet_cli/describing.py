"""What a component is, in words: its settings with types, values and help; its contract, file and
package.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from nnunet_core.contracts.abilities import CONTRACTS
from nnunet_core.registry import settings
from nnunet_core.registry.discovery import Resolved, source_file

_WORDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Any: "any value",
}
_LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}


@dataclass(frozen=True)
class Setting:
    """One setting of a component.

    Attributes:
        name: Of the argument of the constructor.
        type: In words: `number > 0`, `text or null`.
        value: That this component has, JSON.
        default: That its class has, JSON.
        help: What the docstring says of it; may be empty.
    """

    name: str
    type: str
    value: Any
    default: Any
    help: str


def settings_of(resolved: Resolved) -> list[Setting]:
    """Return the settings of a component in the order of its constructor.

    Raises:
        PluginError, SettingsError: See `settings.build`.
    """
    target = resolved.load()
    values = settings.full_settings(resolved)
    parameters = settings.parameters_of(resolved, target)
    hints, helps = settings.hints_of(target) if parameters else {}, argument_help(target)
    return [
        Setting(
            name,
            type_text(hints.get(name, Any)),
            values[name],
            to_jsonable_python(parameter.default),
            helps.get(name, ""),
        )
        for name, parameter in parameters.items()
    ]


def described(resolved: Resolved) -> dict[str, Any]:
    """Return what `nnunet plugins show --json` prints of a component."""
    target, command = resolved.load(), resolved.kind == "command"
    return {
        "kind": resolved.kind,
        "reference": resolved.reference,
        "target": resolved.component.target,
        "distribution": resolved.distribution,
        "version": resolved.version,
        "file": source_file(resolved.component.target),
        "contract": contract_of(resolved.kind),
        "api": resolved.component.api,
        "requires": list(resolved.component.requires),
        "summary": resolved.component.summary,
        "documentation": first_paragraph(target),
        "settings": [] if command else [vars(setting) for setting in settings_of(resolved)],
    }


def contract_of(kind: str) -> str:
    """Return where it says what a component of a kind has to do."""
    if kind not in CONTRACTS:
        return "nnunet_core.registry.hookspecs.nnunet_commands"
    protocol = CONTRACTS[kind][0]
    return f"{protocol.__module__}.{protocol.__name__}"


def first_paragraph(target: Any) -> str:
    """Return the summary of a docstring as one line; empty without one, and of what Python writes
    for a dataclass that has none.
    """
    own = vars(target).get("__doc__") if inspect.isclass(target) else target.__doc__
    text = inspect.cleandoc(own or "").partition("\n\n")[0]
    generated = inspect.isclass(target) and text.startswith(f"{target.__name__}(")
    return "" if generated else " ".join(text.split())


def argument_help(target: Any) -> dict[str, str]:
    """Return {argument: what the section `Args:` of the docstring says}; of a class, also those of
    the classes that it inherits from.
    """
    found: dict[str, str] = {}
    for owner in inspect.getmro(target) if inspect.isclass(target) else (target,):
        for documented in (owner, vars(owner).get("__init__")):
            for name, text in _arguments(getattr(documented, "__doc__", None) or "").items():
                found.setdefault(name, text)
    return found


def _arguments(documentation: str) -> dict[str, str]:
    """Return {argument: text} of a docstring in Google's style; several names may share one."""
    _, _, section = inspect.cleandoc(documentation).partition("Args:\n")
    entries: list[str] = []
    indentation = len(section) - len(section.lstrip(" "))
    for line in section.splitlines():
        depth = len(line) - len(line.lstrip(" "))
        if line.strip() and depth < indentation:
            break
        if depth == indentation:
            entries.append(line.strip())
        elif entries:
            entries[-1] += f" {line.strip()}"
    found = {}
    for entry in entries:
        names, colon, text = entry.partition(": ")
        for name in names.split(",") if colon else ():
            found[name.partition("(")[0].strip()] = text.strip()
    return found


def type_text(hint: Any) -> str:
    """Return a type in words, as it is typed on the command line."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return f"{type_text(arguments[0])}{_limits(arguments[1:])}"
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(type_text(argument) for argument in arguments)
    if origin is typing.Literal:
        return " or ".join(json.dumps(argument) for argument in arguments)
    if isinstance(origin, type) and issubclass(origin, typing.Mapping) and len(arguments) == 2:
        return f"{{{type_text(arguments[0])}: {type_text(arguments[1])}}}"
    if origin is tuple and arguments and arguments[-1] is not ...:
        return f"[{', '.join(type_text(argument) for argument in arguments)}]"
    if isinstance(origin, type) and issubclass(origin, typing.Iterable) and arguments:
        return f"list of {type_text(arguments[0])}"
    if hint in _WORDS:
        return _WORDS[hint]
    return getattr(hint, "__name__", str(hint))


def _limits(marks: typing.Iterable[Any]) -> str:
    """Return the limits among the marks of an annotated type: ` > 0, <= 1`."""
    flat = [m for mark in marks for m in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    told = [
        f"{sign} {getattr(mark, name)}"
        for mark in flat
        for name, sign in _LIMITS.items()
        if getattr(mark, name, None) is not None
    ]
    return f" {', '.join(told)}" if told else ""
