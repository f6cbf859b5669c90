"""Typed settings: read the constructor of a component, validate what users set, and build it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model
from pydantic_core import to_jsonable_python

from nnunet_core.errors import PluginError, SettingsError, listed, nearest
from nnunet_core.registry.discovery import Resolved


@dataclasses.dataclass(frozen=True)
class Content:
    """Marks a setting that names a file, `plans: Annotated[str | None, Content(read_digest)] =
    None`: what is in it is a part of a run's identity, where it lies is not.

    Attributes:
        digest: Returns what identifies the content of the file that a value of the setting names.
    """

    digest: Callable[[str], str]


def build(resolved: Resolved) -> Any:
    """Import the component's class and construct it with validated settings.

    Raises:
        SettingsError: A setting that does not exist or has the wrong type; the message names the
            nearest, and the command that shows all.
        PluginError: The class cannot be imported, is no class, or its constructor fails.
    """
    target = resolved.load()
    values = validate(resolved, target)
    try:
        return target(**values)
    except Exception as error:
        raise PluginError(
            f"The {resolved.kind} '{resolved.reference}' cannot be built with settings "
            f"{dict(resolved.component.settings)}: {type(error).__name__}: {error}"
        ) from error


def full_settings(resolved: Resolved) -> dict[str, Any]:
    """Return every setting of a component, defaults included, as JSON values; what identity and
    records hold. A value that is that of the default is written as the default is: 8, not 8.0.
    """
    target = resolved.load()
    chosen = to_jsonable_python(validate(resolved, target))
    defaults = {
        name: to_jsonable_python(parameter.default)
        for name, parameter in parameters_of(resolved, target).items()
    }
    changed = {n: value for n, value in chosen.items() if not _same(value, defaults[n])}
    return {**defaults, **changed}


def content_digests(resolved: Resolved, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return {setting: digest} of the files that settings name, see `Content`.

    Args:
        resolved: The component.
        settings: All of them; one that is None names no file.
    """
    marks = file_settings(resolved)
    return {
        name: mark.digest(settings[name])
        for name, mark in marks.items()
        if settings.get(name) is not None
    }


def file_settings(resolved: Resolved) -> dict[str, Content]:
    """Return the marks of the settings of a component that name files."""
    return {
        name: mark
        for name, hint in hints_of(resolved.load()).items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Content)
    }


def _same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are the same: 8 and 8.0 are, 1 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def validate(resolved: Resolved, target: Any) -> dict[str, Any]:
    """Return the component's settings as typed values, checked against the constructor of
    `target`.
    """
    parameters = parameters_of(resolved, target)
    settings = dict(resolved.component.settings)
    show = f"nnunet plugins show {resolved.reference} --kind {resolved.kind}"
    further = f"All with their values: {show}"
    for name in settings:
        if name not in parameters:
            few = listed(list(parameters)) or "none"
            shown = nearest(name, parameters, most=3) or f" Settings: {few}."
            raise SettingsError(
                f"The {resolved.kind} '{resolved.reference}' has no setting '{name}'.{shown} "
                f"{further}"
            )
    hints = hints_of(target) if settings else {}
    fields: dict[str, Any] = {name: (hints.get(name, Any), ...) for name in settings}
    config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False)
    model = create_model(target.__name__, __config__=config, **fields)
    try:
        return dict(model.model_validate_json(json.dumps(settings), strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        default = json.dumps(to_jsonable_python(parameters[str(first["loc"][0])].default))
        raise SettingsError(
            f"{resolved.kind}.{field} of '{resolved.reference}' got {first.get('input')!r}: "
            f"{first['msg']}. Default: {default}. {further}"
        ) from error


def parameters_of(resolved: Resolved, target: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of the constructor; those of a dataclass with the values that its
    default factories make.
    """
    if not inspect.isclass(target):
        raise PluginError(
            f"The {resolved.kind} '{resolved.reference}' points at {target!r}; a component must be "
            "a class."
        )
    if target.__init__ is object.__init__:
        return {}
    parameters = dict(inspect.signature(target).parameters)
    for field in dataclasses.fields(target) if dataclasses.is_dataclass(target) else ():
        parameter, factory = parameters.get(field.name), field.default_factory
        if parameter is None or factory is dataclasses.MISSING:
            continue
        if repr(parameter.default) == "<factory>":  # else the constructor has a default of its own
            parameters[field.name] = parameter.replace(default=factory())
    for parameter in parameters.values():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if variadic or parameter.default is parameter.empty:
            raise PluginError(
                f"The constructor of {resolved.kind} '{resolved.reference}' takes '{parameter}'; "
                "every setting needs a name, a type and a default value."
            )
    return parameters


def hints_of(target: Any) -> dict[str, Any]:
    """Return the types of the constructor's parameters; a dataclass may inherit some from a class
    of another module.
    """
    try:
        return typing.get_type_hints(target.__init__, include_extras=True)
    except NameError:
        if not dataclasses.is_dataclass(target):
            raise
        return typing.get_type_hints(target, include_extras=True)
