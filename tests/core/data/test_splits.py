"""Folds: v1's, written once, whoever comes first."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from listening import Listener

from nnunet_core.data.splits import Split, Splits, five_folds, load_splits
from nnunet_core.errors import StorageError, UsageError

NAMES = [f"case_{i:03d}" for i in range(11)]


@pytest.mark.shared
def test_folds_are_those_of_v1(golden):
    for entry in json.loads((golden / "folds.json").read_text()):
        folds = [{"train": list(s.train), "val": list(s.val)} for s in five_folds(entry["cases"])]
        assert folds == entry["folds"]


def test_eleven_cases_split_as_the_specification_says():
    validation = [
        [NAMES.index(name) for name in split.val] for split in five_folds(reversed(NAMES))
    ]
    assert validation == [[0, 3, 7], [6, 10], [8, 9], [1, 4], [2, 5]]


def test_cases_that_came_after_the_folds_are_named(tmp_path):
    listener = Listener()
    load_splits(NAMES, ["0"], tmp_path / "s.json", listener)
    assert not listener.warnings
    load_splits([*NAMES, "zz_new"], ["0"], tmp_path / "s.json", listener)
    (warning,) = listener.warnings
    assert "1 case of the dataset is in no fold" in warning
    assert "zz_new" in warning


def test_cases_of_folds_that_were_not_asked_for_are_in_a_fold(tmp_path):
    first, second = Split(train=NAMES[:5], val=NAMES[5:7]), Split(train=NAMES[7:9], val=NAMES[9:])
    Splits(folds=(first, second)).write(tmp_path / "s.json")
    listener = Listener()
    assert load_splits(NAMES, ["0"], tmp_path / "s.json", listener) == {"0": first}
    assert not listener.warnings


def test_folds_beyond_five_are_random_but_fixed(tmp_path):
    split = load_splits(NAMES, ["7"], tmp_path / "s.json")["7"]
    assert split.val == ("case_003", "case_005", "case_009")
    assert not set(split.train) & set(split.val)


def test_all_trains_and_validates_on_everything_without_a_file(tmp_path):
    split = load_splits(NAMES[:2], ["all"], tmp_path / "s.json")["all"]
    assert split.train == split.val == tuple(NAMES[:2])
    assert not list(tmp_path.iterdir())


def test_too_few_cases_name_the_way_out(tmp_path):
    with pytest.raises(UsageError, match=r"this dataset has 2.*--folds all"):
        load_splits(NAMES[:2], ["0"], tmp_path / "s.json")


def test_concurrent_first_writers_agree_and_an_existing_file_wins(tmp_path):
    path = tmp_path / "s.json"
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: load_splits(NAMES, ["0"], path)["0"], range(16)))
    assert len(set(results)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]
    Splits(folds=(results[0],) * 5).write(path)
    assert load_splits(NAMES, ["3"], path)["3"] == results[0]


def test_a_file_of_other_cases_is_refused(tmp_path):
    path = tmp_path / "s.json"
    load_splits(NAMES, ["0"], path)
    with pytest.raises(StorageError, match="case_000"):
        load_splits(NAMES[1:], ["0"], path)
