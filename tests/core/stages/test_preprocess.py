"""Preparing a dataset: only what is missing or stale, in one process or several, with errors as
they were.
"""

import dataclasses
import os

import numpy as np
import pytest
from plain_cases import CONFIGURATION, IDENTITY, SHAPE, Plain, prepare

from nnunet_core.data.images import Geometry
from nnunet_core.data.plans import Normalization
from nnunet_core.errors import DatasetError, NnunetError
from nnunet_core.runtime import workers as parallel
from nnunet_core.stages.prepare import case_keys
from nnunet_core.store.prepared import PreparedStore


@pytest.fixture
def work_is_large(monkeypatch):
    monkeypatch.setattr(parallel, "SMALL_WORK", 0)


def process_facts(store) -> np.ndarray:
    """(cases, 3): process id, whether torch was imported, threads."""
    return np.stack([store.open(name).images[0, 0, 0, :3] for name in store.names()])


def test_every_case_is_prepared_once(dataset, store):
    assert prepare(dataset, store) == list("abcde")
    assert store.names() == tuple("abcde")
    for case in dataset.training:
        stored, raw = store.open(case.name), dataset.load(case)
        np.testing.assert_array_equal(stored.images[0, 1:], raw.images[0, 1:])
        np.testing.assert_array_equal(stored.label[:], raw.label)
        assert list(stored.class_locations) == [2, 1]
    assert prepare(dataset, store) == []


def test_changed_and_damaged_cases_are_prepared_again(dataset, store):
    prepare(dataset, store)
    label = dataset.training[1].label
    dataset.image_format.write(label, np.zeros(SHAPE, np.uint8), Geometry(SHAPE))
    (store.folder / "d.label.b2nd").write_bytes(b"")
    (store.folder / "e.json").unlink()
    assert prepare(dataset, store) == ["b", "d", "e"]
    assert not store.open("b").label[:].any()


def test_cases_know_their_labels_and_are_prepared_again_when_regions_change(dataset):
    assert dataset.load(dataset.training[0]).labels == dataset.labels
    assert dataset.load(dataclasses.replace(dataset.training[0], label=None)).labels is None
    keys = [case_keys(dataset, CONFIGURATION, IDENTITY)]
    for regions in (((1, 2), (2,)), ((2,), (1, 2))):
        changed = dataset.labels.model_copy(update={"regions": regions})
        other = dataclasses.replace(dataset, labels=changed)
        keys.append(case_keys(other, CONFIGURATION, IDENTITY))
    assert len({key["a"] for key in keys}) == 3


def test_small_datasets_stay_in_this_process(dataset, store):
    prepare(dataset, store, workers=2)
    assert set(process_facts(store)[:, 0]) == {os.getpid()}


@pytest.mark.slow
def test_processes_prepare_the_same_without_torch_in_one_thread_each(
    dataset, store, tmp_path, work_is_large
):
    assert sorted(prepare(dataset, store, workers=3)) == list("abcde")
    facts = process_facts(store)
    assert os.getpid() not in facts[:, 0]
    assert set(facts[:, 1]) == {0}
    assert set(facts[:, 2]) == {1}
    alone = PreparedStore(tmp_path / "alone")
    prepare(dataset, alone)
    for name in "abcde":
        np.testing.assert_array_equal(
            store.open(name).images[0, 1:], alone.open(name).images[0, 1:]
        )


@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_error_arrives_as_it_was_and_what_is_done_stays(dataset, store, workers, work_is_large):
    with pytest.raises(DatasetError, match=r"^Case c has no voxel\.$"):
        prepare(dataset, store, Plain(fail="c"), workers)
    assert "c" not in store.names()
    left = set("abcde") - set(store.names())
    assert set(prepare(dataset, store)) == left


@pytest.mark.slow
def test_a_process_that_dies_twice_is_reported_with_its_case(dataset, store, work_is_large):
    with pytest.raises(NnunetError, match=r"case e died twice.*exit code 9.*peak memory"):
        prepare(dataset, store, Plain(die="e"), workers=3)
    left = set("abcde") - set(store.names())
    assert "e" in left
    assert set(prepare(dataset, store)) == left


def test_the_key_tells_what_the_prepared_case_depends_on(dataset):
    case = dataset.training[0]

    def key(configuration=CONFIGURATION, case=case, identity=IDENTITY, foreground=(2, 1)):
        labels = dataset.labels.model_copy(update={"foreground": foreground})
        changed = dataclasses.replace(dataset, labels=labels, training=(case,))
        return case_keys(changed, configuration, identity)[case.name]

    other = CONFIGURATION.model_copy
    different = [
        key(other(update={"spacing": (1.0, 1.0, 2.0)})),
        key(other(update={"transpose_forward": (1, 0, 2)})),
        key(other(update={"normalization": (Normalization(scheme="zscore"),)})),
        key(identity={"reference": "test/plain", "settings": {"fail": "x"}}),
        key(foreground=(1, 2)),
        key(case=dataset.training[1]),
        key(case=dataclasses.replace(case, label=None)),
    ]
    assert len({key(), *different}) == 8
    assert key(other(update={"patch_size": (2, 2, 2), "batch_size": 7})) == key()


def test_an_unreadable_file_is_named(dataset, store):
    dataset.training[2].images[0].unlink()
    with pytest.raises(DatasetError, match="c_0000"):
        prepare(dataset, store)


def test_cases_that_cannot_be_prepared_fail_alone_and_are_named(dataset, store):
    for index in (1, 3):
        dataset.training[index].images[0].write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"2 cases cannot be prepared:\n.*b_0000.*\n.*d_0000"):
        prepare(dataset, store)
    assert store.names() == tuple("ace")
