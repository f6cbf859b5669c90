"""Runs the checks of one file of the conformance kit on components that are right or wrong on
purpose.
"""

import functools

from nnunet_core.registry.discovery import Registry
from nnunet_core.testing.doors import checks_of
from nnunet_core.testing.references import Finder


@functools.cache
def _registry():
    return Registry.discover()


def outcomes(kind, component, **partners):
    """Return {check: its row} of the checks in the kind's own file for a class."""
    subject = Finder(_registry(), partners=partners).subject(component, kind)
    rows = [check.row(subject) for check in checks_of(kind) if _is_own(check, kind)]
    return {row.check: row for row in rows}


def failures(kind, component, **partners):
    """Return {check: message} of those that fail."""
    rows = outcomes(kind, component, **partners).values()
    return {row.check: row.message for row in rows if row.outcome == "failed"}


def own_checks(kind):
    """Return the names of the checks in the kind's own file."""
    return {check.name for check in checks_of(kind) if _is_own(check, kind)}


def _is_own(check, kind):
    return check.function.__module__ == f"nnunet_core.testing.kinds.{kind}"
