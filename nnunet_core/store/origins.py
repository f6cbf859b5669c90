"""Which options of the command line make the method of a trained model: what the digest in its name
stands for.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from nnunet_core.data.weights import InitialWeights
from nnunet_core.errors import NnunetError
from nnunet_core.registry.components import RUN_KINDS, Variant
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.settings import full_settings
from nnunet_core.registry.variants import DEFAULT, Bundle, find, is_file

#: Beside the results of a method whose variants were files: one file that holds all of them.
KEPT = "variant.toml"


def options_of(
    variants: Sequence[str],
    components: Mapping[str, ComponentRecord],
    initial: InitialWeights | None,
    registry: Registry,
) -> list[str]:
    """Return the options that make a method: its variants, and what differs from them.

    Args:
        variants: References to the variants that it started from.
        components: {kind: record}.
        initial: Weights that its trainings start from.
        registry: Knows variants as they are installed; what is not installed counts as chosen.

    Returns:
        Words of a command line: ["--variant", "demo", "--set", "trainer.epochs=50"].
    """
    words = [word for reference in variants for word in ("--variant", reference)]
    options = [] if tuple(variants) == (DEFAULT,) else words
    plain, full = Bundle(), partial(_reference, registry)
    for reference in (DEFAULT, *variants):
        plain = plain.then(reference, _found(reference, registry), full)
    for kind in (kind for kind in RUN_KINDS if kind in components):
        record = components[kind]
        chosen, changed = record.reference, plain.settings.get(kind, {})
        in_file = ":" in chosen and any(map(is_file, variants))  # see variants.check_code
        if in_file or plain.choices.get(kind, chosen) != chosen:
            options += [f"--{kind}", chosen]
            changed = {}
        usual = _settings(registry, kind, chosen, changed)
        for name, value in record.settings.items():
            if name not in usual or usual[name] != value:
                options += ["--set", f"{kind}.{name}={json.dumps(value)}"]
    if initial is not None:
        options += ["--pretrained", initial.path]
        options += [word for part in initial.frozen for word in ("--freeze", part)]
    return options


def variants_of(method: str, registry: Registry) -> tuple[str, ...]:
    """Return the installed variants whose names a results folder begins with, `resenc_l+short-...`;
    the default one if one of them is not installed.
    """
    installed = [variant.name for _, variant in registry.variants()]
    found = []
    for part in method.split("+"):
        fitting = [name for name in installed if f"{part}-".startswith((f"{name}_", f"{name}-"))]
        found.append(max(fitting, key=len, default=""))
    return tuple(found) if all(found) else (DEFAULT,)


def command(verb: str, dataset: str, options: Sequence[str]) -> str:
    """Return a command that a message tells the user to run, as a shell reads it."""
    return shell_line(["nnunet", verb, dataset, *options])


def shell_line(words: Sequence[str]) -> str:
    """Return words as a line of a shell."""
    return shlex.join(words)


def _found(reference: str, registry: Registry) -> Variant:
    try:
        return find(registry, reference)
    except NnunetError:  # blocked, of two plugins, or a file that is gone
        return Variant(reference)


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
