"""The two doors of the kit: a function that returns rows, and a decorator for pytest."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_core.contracts.abilities import CONTRACTS
from nnunet_core.errors import UnknownComponentError, UsageError, nearest
from nnunet_core.registry.components import KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.testing import kinds as _kinds
from nnunet_core.testing.check import Check, Row, Subject

#: Everything that has checks.
CHECKED = (*KINDS, "variant", "observer")
#: `name`, `plugin/name`, `package.module:Class`, the class itself, or (kind, one of these).
Reference = str | type | tuple[str, str | type]


def check_component(
    reference: str | type,
    kind: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    example: Path | None = None,
    registry: Registry | None = None,
) -> list[Row]:
    """Run every check of a component's kind; return a row per check. No check raises.

    Args:
        reference: `name`, `plugin/name`, `package.module:Class`, or the class.
        kind: `loss`, `planner`, ..., `variant`, `observer`; None finds it.
        settings: Of the component, in place of its own.
        expected_failures: {name of a check: why it fails}; one that passes is a failure.
        example: A dataset folder or image file that the component reads, where it reads another
            layout than the toy datasets have.
        registry: None discovers what is installed.

    Raises:
        UnknownComponentError: Nothing, or more than one thing, has that name.
        UsageError: There is no such kind, or `expected_failures` names no check of the kind.
    """
    found = subject_of(reference, kind, registry, settings, example)
    return list(rows_of(found, expected_failures))


def rows_of(subject: Subject, expected_failures: Mapping[str, str] | None = None) -> list[Row]:
    """Run every check of a subject."""
    expected = _known(expected_failures or {}, [subject])
    return [check.row(subject, expected.get(check.name)) for check in checks_of(subject.kind)]


def parametrize_with_checks(
    references: Sequence[Reference],
    *,
    expected_failures: Mapping[str, str] | None = None,
    example: Path | None = None,
) -> Callable[[Any], Any]:
    """Make a test of each check of each component; for functions with the arguments `component` and
    `check`.

        @parametrize_with_checks(["mypkg/my_focal", ("trainer", "mypkg.training:Longer")])
        def test_contract(component, check):
            check(component)

    Args:
        references: Components; where a name is one of several kinds, (kind, name).
        expected_failures: {name of a check: why it fails}: these become strict `xfail`s.
        example: See `check_component`.

    Raises:
        UnknownComponentError, UsageError: As `check_component`, when the tests are collected.
    """
    import pytest

    registry = Registry.discover()
    pairs = [each if isinstance(each, tuple) else (None, each) for each in references]
    subjects = [subject_of(name, kind, registry, example=example) for kind, name in pairs]
    expected = _known(expected_failures or {}, subjects)
    parameters = []
    for subject in subjects:
        for check in checks_of(subject.kind):
            reason = expected.get(check.name)
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
            name = f"{subject.kind}-{subject.reference}-{check.name}"
            parameters.append(pytest.param(subject, check, id=name, marks=marks))
    return pytest.mark.parametrize(("component", "check"), parameters)


@functools.cache
def all_checks() -> tuple[Check, ...]:
    """Return every check: those of every kind first, then a file after the other."""
    found: dict[str, Check] = {}
    names = sorted(info.name for info in pkgutil.iter_modules(_kinds.__path__))
    for name in sorted(names, key=lambda name: name != "every"):
        module = importlib.import_module(f"{_kinds.__name__}.{name}")
        for value in vars(module).values():
            if isinstance(value, Check) and found.setdefault(value.name, value) is not value:
                raise ValueError(f"Two checks are named '{value.name}'.")
    return tuple(found.values())


def checks_of(kind: str) -> tuple[Check, ...]:
    """Return the checks of a kind, in the order in which they run.

    Raises:
        UsageError: There is no such kind.
    """
    if kind not in CHECKED:
        raise UsageError(
            f"There is no kind '{kind}'.{nearest(kind, CHECKED)} Kinds: {', '.join(CHECKED)}."
        )
    return tuple(check for check in all_checks() if kind in check.kinds)


def subject_of(
    reference: str | type,
    kind: str | None = None,
    registry: Registry | None = None,
    settings: Mapping[str, Any] | None = None,
    example: Path | None = None,
) -> Subject:
    """Find what a reference names; see `check_component`."""
    registry = registry or Registry.discover()
    name = reference if isinstance(reference, str) else _target(reference)
    kind = kind or _kind_of(name, registry)
    checks_of(kind)
    subject = Subject(kind, name, registry, example=example)
    if kind == "observer":
        return subject
    if kind == "variant":
        info, variant = registry.variant(name)
        return replace(subject, reference=f"{info.name}/{variant.name}", variant=variant)
    resolved = registry.resolve(kind, name).with_settings(settings or {})
    return replace(subject, reference=resolved.reference, resolved=resolved)


def _target(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _kind_of(reference: str, registry: Registry) -> str:
    """Return the one kind that has something of this name.

    Raises:
        UnknownComponentError: There is none, or there are several.
    """
    named = {resolved.kind for resolved in registry.components() if _is(reference, resolved)}
    named |= {"variant" for info, v in registry.variants() if _same(reference, info.name, v.name)}
    if ":" in reference:
        named = _kinds_by_methods(registry.resolve("class", reference).load())
    if len(named) == 1:
        return named.pop()
    if named:
        kinds = ", ".join(kind for kind in CHECKED if kind in named)
        raise UnknownComponentError(
            f"'{reference}' names something of several kinds: {kinds}. Say which one (--kind)."
        )
    if ":" in reference:
        raise UnknownComponentError(
            f"'{reference}' has the methods of no kind of component. Say which one it should be "
            f"(--kind); what each needs: docs, reference/contracts. Kinds: {', '.join(CHECKED)}."
        )
    names = [resolved.component.name for resolved in registry.components()]
    names += [variant.name for _, variant in registry.variants()]
    names += [info.name for info in registry.plugins()]
    raise UnknownComponentError(
        f"There is no component, variant or plugin named '{reference}'."
        f"{nearest(reference, names)} 'nnunet plugins list' shows all. Code of your own is named "
        "as 'package.module:Class'."
    )


def _is(reference: str, resolved: Any) -> bool:
    return _same(reference, resolved.reference.partition("/")[0], resolved.component.name)


def _same(reference: str, plugin: str, name: str) -> bool:
    return reference in {name, f"{plugin}/{name}"}


def _kinds_by_methods(target: object) -> set[str]:
    """Return the kinds whose methods a class has; where one contract holds another, the larger."""
    if not inspect.isclass(target):
        return {"command"} if callable(target) else set()
    complete: dict[str, set[str]] = {}
    for kind, (contract, *_) in CONTRACTS.items():
        methods = {n for n, value in vars(contract).items() if n[0] != "_" and callable(value)}
        if all(hasattr(target, name) for name in methods):
            complete[kind] = methods
    return {
        kind
        for kind, methods in complete.items()
        if not any(methods < others for others in complete.values())
    }


def _known(expected: Mapping[str, str], subjects: Sequence[Subject]) -> Mapping[str, str]:
    """Return expected failures after a check of their names. Raises UsageError."""
    names = {check.name for subject in subjects for check in checks_of(subject.kind)}
    for name in expected:
        if name not in names:
            raise UsageError(
                f"expected_failures names '{name}', which is no check of "
                f"{', '.join(sorted({s.kind for s in subjects}))}.{nearest(name, names)}"
            )
    return expected
