"""`nnunet splits`: shows, makes, and never replaces unasked."""

import json
import pickle

import pytest

from nnunet_cli.main import main
from nnunet_core.data.splits import Splits, five_folds, load_splits

NAMES = [f"case_{i}" for i in range(6)]


@pytest.fixture
def splits(tiny, capsys):
    """Return a function that runs the command: (exit code, stdout, stderr)."""

    def call(*options):
        with pytest.raises(SystemExit) as stopped:
            main(["splits", str(tiny), "--workspace", str(tiny.parents[1]), *map(str, options)])
        return (stopped.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def path(tiny):
    return tiny.parents[1] / "preprocessed" / tiny.name / "splits.json"


def test_without_options_nothing_is_written(splits, path):
    code, out, _ = splits()
    assert (code, path.exists()) == (0, False)
    assert "case_5" in out
    assert json.loads(splits("--json")[1])["folds"] == [
        fold.model_dump(mode="json") for fold in five_folds(NAMES)
    ]


def test_folds_are_made_shown_and_loaded(splits, path):
    assert splits("--folds", 3)[0] == 0
    assert [len(split.val) for split in load_splits(NAMES, (), path).values()] == [2, 2, 2]
    assert "3 folds of 6 cases" in splits()[1]


def test_groups_and_pickles(splits, path, tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text(
        "case,patient\n" + "".join(f"{name},{i // 2}\n" for i, name in enumerate(NAMES))
    )
    assert splits("--groups", table, "--folds", 3)[0] == 0
    assert {split.val for split in Splits.read(path).folds} == {
        tuple(NAMES[i : i + 2]) for i in (0, 2, 4)
    }
    source = tmp_path / "splits_final.pkl"
    source.write_bytes(pickle.dumps([{"train": NAMES[1:], "val": NAMES[:1]}]))
    code, _, err = splits("--from", source, "--overwrite")
    assert code == 0
    assert "5 cases are validated in no fold" in err
    assert len(Splits.read(path).folds) == 1


def test_other_folds_are_replaced_only_when_asked(splits, path, tiny):
    splits("--folds", 3)
    assert splits("--folds", 3)[0] == 0
    before = path.read_text()
    fold = tiny.parents[1] / "results" / tiny.name / "default" / "3d_fullres" / "fold_1"
    fold.mkdir(parents=True)
    (fold / "run.json").write_text("{}")
    code, _, err = splits("--folds", 2)
    assert (code, path.read_text()) == (2, before)
    assert "1 trained fold depends on it" in err
    assert "fold_1" in err
    assert "--overwrite" in err
    assert splits("--folds", 2, "--overwrite")[0] == 0
    assert len(Splits.read(path).folds) == 2


def test_from_excludes_making(splits, tmp_path):
    assert splits("--from", tmp_path / "x.json", "--folds", 3)[0] == 2
