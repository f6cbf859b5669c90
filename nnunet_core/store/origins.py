"""Which options of the command line make the method of a trained model: what the digest in its name
stands for.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_core.data.weights import InitialWeights
from nnunet_core.errors import NnunetError
from nnunet_core.registry.components import RUN_KINDS, Variant
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.settings import full_settings

_DEFAULT = "default"


def options_of(
    method: str,
    components: Mapping[str, ComponentRecord],
    initial: InitialWeights | None,
    registry: Registry,
) -> list[str]:
    """Return the options that make a method: its variant, and what differs from that.

    Args:
        method: Its name, as the results folder; it begins with that of its variant.
        components: {kind: record}.
        initial: Weights that its trainings start from.
        registry: Knows the variant as it is installed; what is not installed counts as chosen.

    Returns:
        Words of a command line: ["--variant", "demo", "--set", "trainer.epochs=50"].
    """
    variant = _variant(method, registry)
    options = [] if variant.name == _DEFAULT else ["--variant", variant.name]
    chosen = {**_of(_DEFAULT, registry).choices(), **variant.choices()}
    for kind in (kind for kind in RUN_KINDS if kind in components):
        record = components[kind]
        plain = chosen.get(kind, record.reference)
        if _reference(registry, kind, plain) == record.reference:
            usual = _settings(registry, kind, plain, variant.settings.get(kind, {}))
        else:
            options += [f"--{kind}", record.reference]
            usual = _settings(registry, kind, record.reference, {})
        for name, value in record.settings.items():
            if name not in usual or usual[name] != value:
                options += ["--set", f"{kind}.{name}={json.dumps(value)}"]
    if initial is not None:
        options += ["--pretrained", initial.path]
        options += [word for part in initial.frozen for word in ("--freeze", part)]
    return options


def command(verb: str, dataset: str, options: Sequence[str]) -> str:
    """Return a command that a message tells the user to run, as a shell reads it."""
    return shell_line(["nnunet", verb, dataset, *options])


def shell_line(words: Sequence[str]) -> str:
    """Return words as a line of a shell."""
    return shlex.join(words)


def _variant(method: str, registry: Registry) -> Variant:
    """Return the variant whose name a method begins with; the default one if it is not
    installed.
    """
    names = [variant.name for _, variant in registry.variants()]
    fitting = [name for name in names if f"{method}-".startswith((f"{name}_", f"{name}-"))]
    return _of(max(fitting, key=len, default=_DEFAULT), registry)


def _of(name: str, registry: Registry) -> Variant:
    try:
        return registry.variant(name)[1]
    except NnunetError:  # blocked, or of two plugins
        return Variant(name)


def _reference(registry: Registry, kind: str, reference: str) -> str:
    """Return the full reference of a registered component; code that a file names is not
    imported.
    """
    if ":" in reference:
        return reference
    try:
        return registry.resolve(kind, reference).reference
    except NnunetError:
        return reference


def _settings(
    registry: Registry, kind: str, reference: str, changed: Mapping[str, Any]
) -> dict[str, Any]:
    """Return every setting of a registered component; none of one that cannot be had."""
    if ":" in reference:
        return {}
    try:
        return full_settings(registry.resolve(kind, reference).with_settings(changed))
    except NnunetError:
        return {}
