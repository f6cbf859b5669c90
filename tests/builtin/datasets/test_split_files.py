"""Folds of others: v1's pickles without running them, v2's JSON, tables of patients; and what folds
must hold.
"""

import contextlib
import copyreg
import json
import os
import pickle
import time
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_builtin.datasets.split_files import read_folds, read_groups
from nnunet_builtin.datasets.split_making import grouped_folds, remarks, shuffled_folds
from nnunet_core.data.splits import Split, Splits, five_folds, load_splits
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.stages.cascade import stage_splits

NAMES = [f"case_{i:03d}" for i in range(11)]
FOLDS = [{"train": list(s.train), "val": list(s.val)} for s in five_folds(NAMES)]


def as_v1(kind):
    """Return folds as v1 writes them: ordered dicts of arrays."""
    return [OrderedDict((side, kind(fold[side])) for side in ("train", "val")) for fold in FOLDS]


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        np.array,
        lambda names: np.array(names).astype(">U12"),
        lambda names: np.array(names, object),
        lambda names: list(np.array(names)),
    ],
    ids=["list", "tuple", "array", "big-endian", "object", "scalars"],
)
def test_pickles_of_v1_are_read_without_numpy(tmp_path, kind, protocol, monkeypatch):
    path = tmp_path / "splits_final.pkl"
    path.write_bytes(pickle.dumps(as_v1(kind), protocol))
    assert read_folds(path).folds == five_folds(NAMES)


def test_old_names_of_numpy_modules_are_known(tmp_path):
    path = tmp_path / "splits_final.pkl"
    content = pickle.dumps(as_v1(np.array), 3).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    path.write_bytes(content)
    assert b"numpy.core" in content
    assert read_folds(path).folds == five_folds(NAMES)


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Runs(os.mkdir, "made"), "mkdir"),
        (Runs(eval, "1"), "builtins.eval"),
        (Runs(getattr, "a", "join"), "builtins.getattr"),
        (Runs(copyreg._reconstructor, object, object, None), "copyreg._reconstructor"),
        (Runs(np.load, "x"), "numpy.load"),
        (np.arange(4), "train.0: Input should be a valid string"),
        (np.array([["a", "b"]]), "train.0: Input should be a valid string"),
    ],
    ids=["mkdir", "eval", "getattr", "copyreg", "numpy.load", "numbers", "matrix"],
)
def test_a_pickle_that_needs_more_is_refused_and_nothing_runs(
    tmp_path, monkeypatch, content, named
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "splits_final.pkl").write_bytes(pickle.dumps([{"train": content, "val": ["a"]}]))
    with pytest.raises(StorageError, match=named):
        read_folds(tmp_path / "splits_final.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["splits_final.pkl"]


@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_pickles_are_one_kind_of_error(tmp_path_factory, noise, position):
    path = tmp_path_factory.mktemp("noise") / "splits_final.pkl"
    content = pickle.dumps(as_v1(np.array))
    path.write_bytes(content[:position] + noise + content[position + len(noise) :])
    with contextlib.suppress(StorageError):
        read_folds(path)


def laughs(levels):
    """Ten lists, each with the one before ten times: ten to the power of ten strings."""
    lines = [b"(lp0\nVx\na"]
    lines += [b"(lp%d\n" % i + b"g%d\na" % (i - 1) * 10 for i in range(1, levels)]
    return b"".join(lines) + b"."


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (laughs(10), "more than"),
        (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.", "bytes of content"),
        (
            b"\x80\x02]q\x00("
            + b"N" * 10_000
            + b"e"
            + b"cbuiltins\nlist\nh\x00\x85R0" * 100
            + b".",
            "more than",
        ),
        (b"\x80\x02(cos\nsystem\nVecho\no.", "os.system"),
        (b"\x80\x02Pname\n.", "instruction PERSID"),
        (b"\x80\x04" + b"]\x94" * 200_000 + b"a" * 199_999 + b".", "deep"),
    ],
    ids=["laughs", "length", "copies", "object", "persistent", "deep"],
)
def test_small_pickles_that_would_become_large_or_run_more_are_refused_at_once(
    tmp_path, content, named
):
    path = tmp_path / "splits_final.pkl"
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(StorageError, match=named):
        read_folds(path)
    assert time.process_time() - started < 20


def test_json_of_v2_and_of_this_project(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(FOLDS))
    assert read_folds(path).folds == five_folds(NAMES)
    read_folds(path).write(tmp_path / "own.json")
    assert read_folds(tmp_path / "own.json") == read_folds(path)


@pytest.mark.parametrize(
    "content", [5, {"folds": 5}, [["a"]], [{"train": ["a"]}], [{"train": [1], "val": ["a"]}]]
)
def test_other_json_is_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(StorageError, match="Expected"):
        read_folds(tmp_path / "s.json")


@pytest.mark.parametrize("name", ["gone.json", "splits.txt"])
def test_a_file_that_cannot_hold_folds_is_refused(tmp_path, name):
    (tmp_path / "splits.txt").write_text("[]")
    with pytest.raises(UsageError, match=name):
        read_folds(tmp_path / name)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "no folds"),
        ([("ab", "")], r"fold 0, has no cases under 'val'"),
        ([("ab", "c"), ("aab", "c")], r"fold 1, names cases more than once under 'train': a\."),
        ([("abc", "c")], r"trains on cases that it validates: c\."),
        ([("ab", "x")], r"does not have: x\."),
    ],
)
def test_folds_that_cannot_be_trained_are_refused(tmp_path, folds, message):
    splits = Splits(folds=[Split(train=tuple(train), val=tuple(val)) for train, val in folds])
    splits.write(tmp_path / "splits.json")
    with pytest.raises(StorageError, match=message):
        load_splits("abc", ["0"], tmp_path / "splits.json")


def test_unusual_folds_are_remarked():
    splits = Splits(folds=[Split(train=("a",), val=("b",)), Split(train=("a",), val=("b",))])
    never, several, unused = remarks(splits, "abc")
    assert "2 cases are validated in no fold" in never
    assert never.endswith("a, c.")
    assert several.endswith("b.")
    assert unused.endswith("c.")
    assert remarks(Splits(folds=five_folds(NAMES)), NAMES) == []


def test_own_folds_are_sorted_and_all_of_them_are_loaded(tmp_path):
    (tmp_path / "s.json").write_text(
        '{"folds": [{"train": ["c", "a"], "val": ["b"]}, {"train": ["b"], "val": ["c", "a"]}]}'
    )
    folds = load_splits("abc", (), tmp_path / "s.json")
    assert list(folds) == ["0", "1"]
    assert folds["0"].train == ("a", "c")


def test_a_cascade_needs_every_stored_fold_of_its_stage(tmp_path):
    Splits(folds=shuffled_folds(NAMES, 3)).write(tmp_path / "s.json")
    needed = {
        asked: list(stage_splits(NAMES, asked, tmp_path / "s.json"))
        for asked in ((), ("1",), ("all",))
    }
    assert needed == {(): ["0", "1", "2"], ("1",): ["0", "1", "2"], ("all",): ["all"]}


@given(
    st.dictionaries(
        st.sampled_from([f"c{i}" for i in range(40)]), st.sampled_from("ABCDEFGHIJ"), min_size=2
    ),
    st.integers(2, 10),
)
def test_groups_stay_together_every_case_is_validated_once_and_folds_are_even(groups, count):
    if len(set(groups.values())) < count:
        with pytest.raises(UsageError, match="groups"):
            grouped_folds(groups, count)
        return
    folds = grouped_folds(groups, count)
    assert folds == grouped_folds(dict(reversed(groups.items())), count)
    assert sorted(name for split in folds for name in split.val) == sorted(groups)
    for split in folds:
        assert not {groups[name] for name in split.train} & {groups[name] for name in split.val}
        assert sorted(split.train + split.val) == sorted(groups)
    sizes = [len(split.val) for split in folds]
    largest = max(list(groups.values()).count(group) for group in groups.values())
    assert max(sizes) - min(sizes) <= largest


def test_groups_are_shuffled_and_the_largest_comes_first():
    alone = grouped_folds({name: name for name in NAMES}, 5)
    assert [split.val for split in alone] != [tuple(NAMES[fold::5]) for fold in range(5)]
    groups = {f"c{i}": "family" if i < 9 else f"c{i}" for i in range(18)}
    assert [len(split.val) for split in grouped_folds(groups, 2)] == [9, 9]


@pytest.mark.parametrize("count", [1, 12])
def test_a_number_of_folds_that_is_impossible(count):
    with pytest.raises(UsageError, match="allowed are 2 to 11"):
        shuffled_folds(NAMES, count)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_patients(tmp_path, delimiter):
    lines = [
        delimiter.join(row)
        for row in (("case", "patient", "age"), (" a ", "P 1", "3"), ("b", "P 2", "4"))
    ]
    (tmp_path / "g.csv").write_text("\ufeff" + "\n".join(lines) + "\n\n")
    assert read_groups(tmp_path / "g.csv", "ab") == {"a": "P 1", "b": "P 2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,patient\na\nb,2", r"line 2: expected a case and its patient"),
        ("case,patient\na,1\nbb,2", r"line 3: the dataset has no case 'bb'"),
        ("case,patient\na,1\na,2", r"line 3: the case 'a' is named a second time"),
        ("a,1\nb,2", r"names no patient for 1 case: a\. .*header"),
    ],
)
def test_wrong_tables_name_the_line(tmp_path, text, message):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_groups(tmp_path / "g.csv", "ab")
