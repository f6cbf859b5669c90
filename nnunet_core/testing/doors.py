"""The two doors of the kit: a function that returns rows, and a decorator for pytest."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_core.errors import UsageError, nearest
from nnunet_core.registry.discovery import Registry
from nnunet_core.testing import kinds as _kinds
from nnunet_core.testing.check import Check, Row, Subject
from nnunet_core.testing.references import CHECKED, Finder

#: `name`, `plugin/name`, `package.module:Class`, the class itself, or (kind, one of these).
Reference = str | type | tuple[str, str | type]


def check_component(
    reference: str | type,
    kind: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    checks: Sequence[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    example: Path | None = None,
    partners: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> list[Row]:
    """Run the checks of a component's kind; return a row per check. No check raises.

    Args:
        reference: `name`, `plugin/name`, `package.module:Class`, or the class; that of a plugin or
            distribution means all that it registers.
        kind: `loss`, `planner`, ..., `variant`, `observer`; None finds it.
        settings: Of the component, in place of its own.
        checks: Names of those to run; none means all.
        expected_failures: {name of a check: why it fails}; one that passes is a failure.
        example: A dataset folder or image file that the component reads, where it reads another
            layout than the toy datasets have.
        partners: {kind: reference} of components that it works with, in place of the default ones
            and of those in a variant of its plugin that chooses it.
        registry: None discovers what is installed.

    Raises:
        UnknownComponentError: Nothing, or more than one thing, has that name.
        UsageError: There is no such kind, or no check of the kind has one of these names.
    """
    if kind is not None:
        checks_of(kind)
    subjects = Finder(registry, example, partners).find(reference, kind, settings)
    return list(rows_of(subjects, checks, expected_failures))


def rows_of(
    subjects: Sequence[Subject],
    checks: Sequence[str] = (),
    expected_failures: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Run checks of some subjects, and yield the row of each; see `check_component`."""
    expected = expected_failures or {}
    for check, subject in _pairs(subjects, checks, expected):
        yield check.row(subject, expected.get(check.name))


def parametrize_with_checks(
    references: Sequence[Reference],
    *,
    checks: Sequence[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    example: Path | None = None,
    partners: Mapping[str, str] | None = None,
) -> Callable[[Any], Any]:
    """Make a test of each check of each component; for functions with the arguments `component` and
    `check`.

        @parametrize_with_checks(["mypkg/my_focal", ("trainer", "mypkg.training:Longer")])
        def test_contract(component, check):
            check(component)

    Args:
        references: Components; where a name is one of several kinds, (kind, name). That of a
            plugin or distribution means all that it registers.
        checks: Names of those to run; none means all.
        expected_failures: {name of a check: why it fails}: these become strict `xfail`s.
        example: See `check_component`.
        partners: See `check_component`.

    Raises:
        UnknownComponentError, UsageError: As `check_component`, when the tests are collected.
    """
    import pytest

    finder = Finder(example=example, partners=partners)
    pairs = [each if isinstance(each, tuple) else (None, each) for each in references]
    subjects = [subject for kind, name in pairs for subject in finder.find(name, kind)]
    expected, parameters = expected_failures or {}, []
    for check, subject in _pairs(subjects, checks, expected):
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


def _pairs(
    subjects: Sequence[Subject], chosen: Sequence[str], expected: Mapping[str, str]
) -> list[tuple[Check, Subject]]:
    """Return the checks to run. Raises UsageError for a name of no check."""
    pairs = [(check, subject) for subject in subjects for check in checks_of(subject.kind)]
    names = {check.name: None for check, _ in pairs}
    for name in (*chosen, *expected):
        if name not in names:
            kinds = ", ".join(sorted({subject.kind for subject in subjects}))
            raise UsageError(
                f"'{name}' is no check of {kinds}.{nearest(name, names)} Checks: "
                f"{', '.join(names)}."
            )
    return [pair for pair in pairs if not chosen or pair[0].name in chosen]
