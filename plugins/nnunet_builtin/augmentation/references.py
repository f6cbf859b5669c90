"""Steps that settings name: by short name, or by reference with settings of their own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from nnunet_builtin.augmentation.transforms import is_transform, transform_of
from nnunet_core.contracts.augmentation import Step
from nnunet_core.errors import SettingsError, nearest
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build

#: A name or reference; or one with settings: {reference: {setting: value}}.
StepEntry = str | dict[str, dict[str, Any]]
_FORMS = (
    'Allowed: a name, "package.module:Class", or with settings {"package.module:Class": '
    '{"setting": 1}}.'
)


def name_of(setting: str, entry: StepEntry) -> str:
    """Return the name or reference of an entry.

    Raises:
        SettingsError: It has another form.
    """
    if isinstance(entry, str):
        return entry
    if len(entry) != 1:
        raise SettingsError(f"augmentation.{setting} got {entry!r} for one step. {_FORMS}")
    return next(iter(entry))


def built(setting: str, entry: StepEntry, known: Mapping[str, Step]) -> tuple[str, Step]:
    """Return name and step of an entry.

    Args:
        setting: `steps` or `extra_steps`, for messages.
        entry: What the setting holds.
        known: Steps with short names.

    Raises:
        SettingsError: A name that no step has, settings that it does not take, or a reference that
            is no step.
        PluginError: A reference that cannot be imported.
    """
    name = name_of(setting, entry)
    settings = {} if isinstance(entry, str) else entry[name]
    if name in known:
        if settings:
            raise SettingsError(
                f"augmentation.{setting} gives '{name}' settings {settings}. Those of a step with "
                "a short name are settings of the augmentation itself: "
                f"augmentation.{name}_probability and so on."
            )
        return name, known[name]
    if ":" not in name:
        raise SettingsError(
            f"augmentation.{setting} names '{name}', which is no step.{nearest(name, known)} "
            f"Steps: {', '.join(known)}. {_FORMS}"
        )
    resolved = Registry().resolve("augmentation step", name).with_settings(settings)
    target = resolved.load()
    if inspect.isclass(target) and issubclass(target, Step):
        return name, build(resolved)
    if is_transform(target):
        return name, transform_of(name, target, settings)
    raise SettingsError(
        f"augmentation.{setting} names '{name}', which is {target!r} and no step. A step is a "
        "subclass of nnunet_core.contracts.augmentation.Step with `draw` and `apply`, or a "
        "transform of batchgenerators."
    )
