"""The inputs of a cascade: what the previous stage must have done first."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_core.data.splits import Split
from nnunet_core.errors import UsageError
from nnunet_core.runtime.reporting import Silence
from nnunet_core.stages import cascade
from nnunet_core.stages.cascade import connect
from nnunet_core.stages.experiment import Experiment

CASCADE = SimpleNamespace(
    configuration_name="3d_cascade_fullres", dataset=SimpleNamespace(name="Task001_A")
)


def stage(finished):
    return SimpleNamespace(
        configuration_name="3d_lowres",
        validation_file=lambda fold, name: Path(fold) / name,
        is_finished=lambda fold, _: fold in finished,
    )


def test_untrained_folds_are_named_with_the_command_that_trains_them():
    splits = {"0": Split(train=("a",), val=("b",)), "1": Split(train=("b",), val=("a",))}
    with pytest.raises(
        UsageError, match=r"folds 1 are not trained.*nnunet train Task001_A -c 3d_lowres --folds 1"
    ):
        connect(CASCADE, stage({"0"}), splits)


def test_cases_that_no_fold_validates_are_named():
    splits = {"0": Split(train=("a", "c", "d"), val=("b",)), "1": Split(train=("b",), val=("a",))}
    with pytest.raises(UsageError, match=r"no fold validates c, d\. .*nnunet splits Task001_A"):
        connect(CASCADE, stage({"0", "1"}), splits)


def test_inputs_that_another_run_prepared_meanwhile_are_not_prepared_again(tmp_path, monkeypatch):
    current, prepared = set(), []
    monkeypatch.setattr(cascade.LabelStore, "is_current", lambda _, name, *__: name in current)
    monkeypatch.setattr(cascade, "_prepare", lambda _, __, todo: prepared.extend(todo))

    @contextlib.contextmanager
    def held(*_):
        current.add("a")  # by who held the lock before
        yield

    monkeypatch.setattr(cascade.locks, "held", held)
    dataset = SimpleNamespace(
        name="Task001_A", digests=SimpleNamespace(of=lambda paths: ["x"] * len(paths))
    )
    store = SimpleNamespace(record=lambda name: SimpleNamespace(key=name))
    experiment = cascade_experiment(tmp_path, dataset, store)
    splits = {"0": Split(train=("a",), val=("b",)), "1": Split(train=("b",), val=("a",))}
    connect(experiment, stage({"0", "1"}), splits)
    assert prepared == ["b"]


def cascade_experiment(folder, dataset, store):
    return Experiment(dataset, None, "3d_cascade_fullres", None, store, folder, None, 0, Silence())
