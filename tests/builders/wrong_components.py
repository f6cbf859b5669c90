"""Runs the checks of one file of the conformance kit on components that are right or wrong on
purpose.
"""

import functools

from nnunet_core.registry.discovery import Registry
from nnunet_core.testing.doors import checks_of, subject_of


@functools.cache
def _registry():
    return Registry.discover()


def failures(kind, component, **settings):
    """Return {check: message} of the checks in the kind's own file that fail for a class."""
    subject = subject_of(component, kind, _registry(), settings)
    own = [
        c for c in checks_of(kind) if c.function.__module__ == f"nnunet_core.testing.kinds.{kind}"
    ]
    rows = [check.row(subject) for check in own]
    return {row.check: row.message for row in rows if row.outcome == "failed"}


def own_checks(kind):
    """Return the names of the checks in the kind's own file."""
    return {c.name for c in checks_of(kind) if c.function.__module__.endswith(f".{kind}")}
