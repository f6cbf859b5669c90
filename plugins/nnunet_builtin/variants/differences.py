"""What differs between two methods: components, settings, and the defaults that these stand on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.settings import full_settings
from nnunet_core.stages.method import Method


@dataclass(frozen=True)
class Value:
    """A setting of one method.

    Attributes:
        value: JSON value.
        chosen: Whether the variant or the record of the component sets it; else it is the default
            of the class.
    """

    value: Any
    chosen: bool


def settings_of(method: Method, kind: str) -> dict[str, Value]:
    """Return every setting of a component, defaults included; of a preprocessor that the plans
    name, those that are set.
    """
    resolved = method.components.get(kind)
    if resolved is None:
        return {name: Value(value, True) for name, value in method.preprocessor_settings.items()}
    chosen = resolved.component.settings
    return {name: Value(v, name in chosen) for name, v in full_settings(resolved).items()}


def reference_of(method: Method, kind: str) -> str | None:
    """Return the full reference of a component; None where the plans name it."""
    return method.components[kind].reference if kind in method.components else None


def components(one: Method, other: Method) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield (kind, reference, reference) of the kinds that differ."""
    for kind in RUN_KINDS:
        left, right = reference_of(one, kind), reference_of(other, kind)
        if left != right:
            yield kind, left, right


def settings(one: Method, other: Method) -> Iterator[tuple[str, Value | None, Value | None]]:
    """Yield (KIND.FIELD, value, value) of the settings that differ; None where a component has no
    such setting.
    """
    for kind in RUN_KINDS:
        left, right = settings_of(one, kind), settings_of(other, kind)
        for name in dict.fromkeys((*left, *right)):
            mine, theirs = left.get(name), right.get(name)
            if mine is None or theirs is None or mine.value != theirs.value:
                yield f"{kind}.{name}", mine, theirs
