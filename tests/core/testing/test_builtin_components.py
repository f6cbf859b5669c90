"""Every component that our own distribution registers passes the conformance kit."""

import pytest

from nnunet_core.registry.discovery import OWN
from nnunet_core.testing.doors import rows_of
from nnunet_core.testing.references import CHECKED, Finder

SUBJECTS = Finder().package(OWN)


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda each: f"{each.kind}-{each.reference}")
def test_a_built_in_component_passes_every_check(subject):
    failed = [(row.check, row.message) for row in rows_of([subject]) if row.outcome == "failed"]
    assert failed == []


def test_there_are_components_of_each_kind():
    assert {subject.kind for subject in SUBJECTS} == set(CHECKED)
