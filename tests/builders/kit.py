"""One check of one component, as tests of the conformance kit need it."""

from nnunet_core.testing.doors import rows_of
from nnunet_core.testing.references import Finder


def row_of(reference, check, kind=None, **options):
    """Run one check; return its row."""
    (row,) = rows_of([Finder(**options).subject(reference, kind)], [check])
    return row


def assert_fails(reference, check, message, kind=None, **options):
    """Assert that a check finds what is wrong, and says it."""
    row = row_of(reference, check, kind, **options)
    assert row.outcome == "failed", row
    assert message in row.message
