"""The inputs of a cascade: what the previous stage must have done first."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest
import small_training as small

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.cases import PreparedGeometry
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import Geometry
from nnunet_core.data.splits import Split
from nnunet_core.errors import UsageError
from nnunet_core.runtime.files import Digests
from nnunet_core.runtime.reporting import Silence
from nnunet_core.stages import cascade
from nnunet_core.stages.cascade import connect
from nnunet_core.stages.experiment import Experiment
from nnunet_core.store.prepared import CaseRecord, PreparedStore


class Equal(Digests):
    """Every file has the same content."""

    def of(self, paths):
        return ["x"] * len(paths)


FORMAT = SimpleItkFormat()
DATASET = Dataset(
    folder=Path("Task001_A"),
    name="Task001_A",
    channels=("MRI",),
    labels=small.labels_of(small.CLASSES),
    ending=".nii.gz",
    image_format=FORMAT,
    label_ending=".nii.gz",
    label_format=FORMAT,
    training=(),
    document={},
    digests=Equal(),
)


class Keys(PreparedStore):
    """A store whose cases have their names as keys."""

    def record(self, name):
        geometry = PreparedGeometry(GRID, ((0, 1),) * 3, (0, 1, 2), (1, 1, 1), (1.0, 1.0, 1.0))
        return CaseRecord(key=name, geometry=geometry, files={})


GRID = Geometry((1, 1, 1))


@dataclass(frozen=True)
class Stage(Experiment):
    """A configuration whose finished folds are known."""

    finished: frozenset = frozenset()

    def is_finished(self, fold, split):
        return fold in self.finished

    def options(self):
        return ["--variant", "demo"]


def experiment(name, folder=Path("x"), finished=()):
    how = (None, name, small.CONFIGURATION, Keys(folder), folder, small.make_runtime(), 0)
    return Stage(DATASET, *how, Silence(), finished=frozenset(finished))


def stage(finished):
    return experiment("3d_lowres", finished=finished)


CASCADE = experiment("3d_cascade_fullres")


def test_untrained_folds_are_named_with_the_command_that_trains_them():
    splits = {"0": Split(train=("a",), val=("b",)), "1": Split(train=("b",), val=("a",))}
    with pytest.raises(
        UsageError,
        match=r"folds 1 are.*nnunet train Task001_A --variant demo -c 3d_lowres --folds 1",
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
    splits = {"0": Split(train=("a",), val=("b",)), "1": Split(train=("b",), val=("a",))}
    connect(experiment("3d_cascade_fullres", tmp_path), stage({"0", "1"}), splits)
    assert prepared == ["b"]
