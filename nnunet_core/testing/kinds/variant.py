"""Checks of variants."""

from __future__ import annotations

import json

from nnunet_core.contracts.abilities import built
from nnunet_core.registry.components import RUN_KINDS, Variant
from nnunet_core.stages.method import Method, choose
from nnunet_core.testing.check import Subject, check, require


@check("variant")
def variant_resolves(subject: Subject) -> None:
    """Every component that it chooses is installed."""
    for kind, reference in _variant(subject).choices().items():
        subject.registry.resolve(kind, reference)
    choose(subject.registry, subject.reference)


@check("variant")
def variant_names_are_full(subject: Subject) -> None:
    """Components are named `plugin/name`: a short name means something else, or nothing, once
    another plugin is installed that has it too.
    """
    short = {k: name for k, name in _variant(subject).choices().items() if "/" not in name}
    require(
        not short,
        f"{', '.join(f'{kind}={name!r}' for kind, name in short.items())}: write plugin/name.",
    )


@check("variant")
def variant_settings_are_valid(subject: Subject) -> None:
    """Every setting exists in the component that it is for, has the right type and is JSON; all the
    components can be built.
    """
    settings = _variant(subject).settings
    unknown = [kind for kind in settings if kind not in RUN_KINDS]
    require(not unknown, f"There is no kind {', '.join(unknown)}. Kinds: {', '.join(RUN_KINDS)}.")
    text = json.dumps({kind: dict(values) for kind, values in settings.items()}, allow_nan=False)
    require(json.loads(text) == settings, f"The settings are {text} once they were JSON.")
    method = _method(subject)
    for resolved in method.components.values():
        built(resolved)
    if "preprocessor" not in method.components and method.preprocessor_settings:
        default = subject.registry.resolve("preprocessor", "default")
        built(default.with_settings(method.preprocessor_settings))


@check("variant")
def variant_has_a_summary(subject: Subject) -> None:
    """A line says what it is: people choose by it."""
    summary = _variant(subject).summary
    require(summary.strip() and "\n" not in summary, f"The summary is {summary!r}.")


def _variant(subject: Subject) -> Variant:
    if subject.variant is None:
        raise TypeError(f"{subject.reference} is no variant.")
    return subject.variant


def _method(subject: Subject) -> Method:
    return choose(subject.registry, subject.reference)
