"""What a dataset says of its cases: from dataset.json and cases.json to the preprocessor, and into
the key of a case.
"""

import dataclasses
import json

import numpy as np
import pytest
from plain_cases import CONFIGURATION, IDENTITY, Plain, prepare

from nnunet_core.data.cases import Case
from nnunet_core.data.images import Geometry
from nnunet_core.data.metadata import LIMIT
from nnunet_core.errors import DatasetError
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import find_cases, open_dataset
from nnunet_core.stages.prepare import case_keys, prepare_case

SCANNERS = {"case_1": {"scanner": "A", "age": 7}, "case_2": {"scanner": None}}


@pytest.fixture
def opened(tiny):
    """Return a function that opens `tiny` with a `cases` of dataset.json."""

    def opened(cases):
        document = json.loads((tiny / "dataset.json").read_text())
        (tiny / "dataset.json").write_text(json.dumps({**document, "cases": cases}))
        return open_dataset(str(tiny), tiny.parent, Registry.discover())

    return opened


def test_training_cases_are_described_in_dataset_json(opened):
    found = opened(SCANNERS)
    assert {case.name: case.metadata for case in found.training if case.metadata} == SCANNERS
    assert found.slim().load(found.case("case_1")).metadata == {"scanner": "A", "age": 7}
    assert found.load(found.case("case_3")).metadata == {}


def test_cases_to_predict_are_described_beside_their_images(opened, tiny):
    (tiny / "imagesTr").rename(tiny / "imagesTs")
    (tiny / "imagesTs" / "cases.json").write_text(json.dumps({"cases": SCANNERS}))
    (tiny / "imagesTr").mkdir()
    for path in (tiny / "imagesTs").glob("*.nii.gz"):
        (tiny / "imagesTr" / path.name).write_bytes(path.read_bytes())
    cases = find_cases(tiny / "imagesTs", opened({}), Registry.discover())
    assert {case.name: case.metadata for case in cases if case.metadata} == SCANNERS


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ({"case_1": {}, "case_9": {}, "b": {}}, "not there: b, case_9. There are: case_0, case_1"),
        ({"case_1": "A"}, "must map case names to JSON objects.*: case_1: .*dict"),
        (["case_1"], "must map case names to JSON objects"),
        ({"case_1": {"notes": "x" * LIMIT}}, f"case_1: .*at most {LIMIT} are allowed"),
        ({"case_1": {"age": float("nan")}}, "case_1: .*JSON compliant"),
    ],
)
def test_wrong_descriptions_are_refused(opened, cases, message):
    with pytest.raises(DatasetError, match=rf"'cases' of .*dataset\.json.*{message}"):
        opened(cases)


@pytest.mark.parametrize("content", ["[]", "{}", '{"cases": {}, "more": 1}', "{"])
def test_a_wrong_file_beside_images_is_refused(opened, tiny, content):
    found = opened({})
    path = tiny / "imagesTr" / "cases.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"cases\.json"):
        find_cases(tiny / "imagesTr", found, Registry.discover())


def test_training_cases_are_described_in_one_place_only(opened, tiny):
    (tiny / "imagesTr" / "cases.json").write_text(json.dumps({"cases": SCANNERS}))
    with pytest.raises(DatasetError, match=r"belongs in 'cases' of .*dataset\.json. Move it there"):
        opened({})


def test_metadata_counts_in_the_key_of_its_case(dataset):
    before = case_keys(dataset, CONFIGURATION, IDENTITY)
    first, *others = dataset.training
    first = dataclasses.replace(first, metadata={"scanner": "B"})
    changed = dataclasses.replace(dataset, training=(first, *others))
    after = case_keys(changed, CONFIGURATION, IDENTITY)
    assert [name for name in before if before[name] != after[name]] == ["a"]


def test_what_a_planner_tells_counts_in_the_key_of_every_case(dataset):
    before = case_keys(dataset, CONFIGURATION, IDENTITY)
    told = CONFIGURATION.model_copy(update={"extra": {"limit": 3}})
    after = case_keys(dataset, told, IDENTITY)
    assert not set(before.values()) & set(after.values())


def test_metadata_reaches_the_stored_geometry(dataset, store):
    first, *others = dataset.training
    first = dataclasses.replace(first, metadata={"scanner": "B"})
    prepare(dataclasses.replace(dataset, training=(first, *others)), store)
    assert store.open("a").geometry.metadata == {"scanner": "B"}
    assert store.open("b").geometry.metadata == {}


def test_a_preprocessor_may_tell_restore_something_else():
    class Own(Plain):
        def prepare(self, case, configuration, foreground=()):
            prepared = super().prepare(case, configuration, foreground)
            geometry = dataclasses.replace(prepared.geometry, metadata={"turned": True})
            return dataclasses.replace(prepared, geometry=geometry)

    shape = (4, 5, 6)
    images, label = np.ones((1, *shape), np.float32), np.zeros(shape, np.int8)
    case = Case("a", images, label, Geometry(shape), {"scanner": "B"})
    assert prepare_case(Own(), case, CONFIGURATION).geometry.metadata == {"turned": True}
    assert prepare_case(Plain(), case, CONFIGURATION).geometry.metadata == {"scanner": "B"}
