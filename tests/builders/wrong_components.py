"""Runs the checks of one file of the conformance kit on components that are right or wrong on
purpose.
"""

import functools

from nnunet_core.testing.doors import checks_of
from nnunet_core.testing.references import Finder


@functools.cache
def _finder():
    return Finder()


def failures(kind, component):
    """Return {check: message} of the checks in the kind's own file that fail for a class."""
    subject = _finder().subject(component, kind)
    rows = [check.row(subject) for check in checks_of(kind) if _is_own(check, kind)]
    return {row.check: row.message for row in rows if row.outcome == "failed"}


def own_checks(kind):
    """Return the names of the checks in the kind's own file."""
    return {check.name for check in checks_of(kind) if _is_own(check, kind)}


def _is_own(check, kind):
    return check.function.__module__ == f"nnunet_core.testing.kinds.{kind}"
