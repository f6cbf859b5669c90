"""Every component that our own distribution registers passes the conformance kit."""

import pytest

from nnunet_core.registry.discovery import OWN
from nnunet_core.testing.doors import rows_of
from nnunet_core.testing.references import Finder

#: The kinds that are checked here.
KINDS = {
    *("plugin", "planner", "preprocessor", "image_format", "dataset_reader", "dataset"),
    *("command", "variant", "observer"),
}
FINDER = Finder()
SUBJECTS = [each for each in FINDER.package(OWN) if each.kind in KINDS]


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda each: f"{each.kind}-{each.reference}")
def test_a_built_in_component_passes_every_check(subject):
    failed = [(row.check, row.message) for row in rows_of([subject]) if row.outcome == "failed"]
    assert failed == []


def test_there_are_components_of_each_kind():
    assert {subject.kind for subject in SUBJECTS} == KINDS
