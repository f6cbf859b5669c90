"""Observers: silent unless asked, one warning when the library is missing, and what they write."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from nnunet_builtin.observers.observer import flat, run_id
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord, FoldRecord

LINE = {"train_loss": -0.5, "validation_loss": None, "dice": [0.75, None], "mean_dice": 0.75}
SUMMARY = {"1": {"Dice": 0.875, "Precision": None}}
TRAINER = ComponentRecord(
    reference="builtin/v2",
    target="x:Y",
    distribution="d",
    version="1",
    settings={"epochs": 2, "odd(name)": 1},
)
RECORD = FoldRecord(
    status="running",
    dataset="Dataset001_Tiny",
    dataset_digest="0",
    variant="default",
    configuration="3d_fullres",
    fold="0",
    seed=1,
    inputs_digest="1",
    model_digest="2",
    components={"trainer": TRAINER},
    started="2020-01-01",
)


@pytest.fixture
def registry(monkeypatch):
    """Return a function that discovers plugins with NNUNET_LOG set."""

    def discover(asked):
        monkeypatch.setenv("NNUNET_LOG", asked)
        for info in Registry.discover().plugins():
            if info.name in ("tensorboard", "wandb", "mlflow"):
                __import__(info.module.partition(":")[0], fromlist=["plugin"]).plugin._logs.clear()
        return Registry.discover()

    return discover


def train(registry, folder, epochs=range(2), finish=True):
    """Notify observers as a training does; return the warnings."""
    shared = {"record": RECORD, "folder": folder}
    warnings = registry.hooks.run_started(**shared)
    for epoch in epochs:
        warnings += registry.hooks.epoch_finished(metrics={"epoch": epoch, **LINE}, **shared)
    if finish:
        warnings += registry.hooks.run_finished(summary=SUMMARY, **shared)
    return warnings


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_observers_are_plugins_and_silent_unless_asked(registry, tmp_path):
    found = registry("")
    assert {"tensorboard", "wandb", "mlflow"} <= {
        info.name for info in found.plugins() if info.status == "active"
    }
    assert train(found, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_files_hold_the_curves(registry, tmp_path):
    pytest.importorskip("tensorboard")
    assert train(registry("tensorboard"), tmp_path) == []
    assert curves(tmp_path) == {
        "train_loss": [(0, -0.5), (1, -0.5)],
        "dice/1": [(0, 0.75), (1, 0.75)],
        "mean_dice": [(0, 0.75), (1, 0.75)],
        "validation/1/Dice": [(1, 0.875)],
    }


def test_tensorboard_forgets_epochs_that_are_trained_again(registry, tmp_path):
    pytest.importorskip("tensorboard")
    found = registry("tensorboard")
    train(found, tmp_path, range(4), finish=False)
    train(found, tmp_path, range(2, 3))
    assert [step for step, _ in curves(tmp_path)["mean_dice"]] == [0, 1, 2]


def test_a_fold_that_only_has_to_be_validated_is_logged(registry, tmp_path):
    pytest.importorskip("tensorboard")
    assert (
        registry("tensorboard").hooks.run_finished(record=RECORD, folder=tmp_path, summary=SUMMARY)
        == []
    )
    assert list(curves(tmp_path)) == ["validation/1/Dice"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_one_warning_that_names_the_extra(
    registry, tmp_path, monkeypatch, name
):
    monkeypatch.setitem(sys.modules, name, None)
    (warning,) = train(registry(f" {name.upper()} ,"), tmp_path)
    assert f"pip install 'nnunet-core[{name}]'" in warning


def test_an_unknown_name_is_a_warning_with_the_nearest(registry, tmp_path):
    (warning,) = train(registry("tensorbord"), tmp_path)
    assert "Did you mean 'tensorboard'" in warning


def test_a_library_that_fails_to_start_is_said_once(registry, tmp_path, monkeypatch):
    module = ModuleType("wandb")
    module.init = lambda **_: 1 / 0
    monkeypatch.setitem(sys.modules, "wandb", module)
    (warning,) = train(registry("wandb"), tmp_path)
    assert "'wandb'" in warning
    assert "ZeroDivisionError" in warning


def test_wandb_gets_one_resumable_run(registry, tmp_path, monkeypatch):
    calls, summary = [], {}
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        summary=summary,
        finish=lambda: calls.append("finished"),
    )
    module = ModuleType("wandb")
    module.init = lambda **options: calls.append(options) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    assert train(registry("wandb"), tmp_path) == []
    options, first, second, end = calls
    assert (options["id"], options["resume"], options["project"]) == (
        run_id(RECORD),
        "allow",
        "nnunet",
    )
    assert options["config"]["trainer.epochs"] == 2
    assert (first[0], second[0], end) == (0, 1, "finished")
    assert first[1] == {"train_loss": -0.5, "dice/1": 0.75, "mean_dice": 0.75}
    assert summary == {"validation/1/Dice": 0.875}
    json.dumps(options["config"])


class FakeMlflow(ModuleType):
    """A client that keeps runs, as a tracking server does."""

    def __init__(self):
        super().__init__("mlflow")
        self.experiments, self.runs, self.metrics, self.params = {}, {}, [], {}
        self.MlflowClient = lambda: self

    def get_experiment_by_name(self, name):
        return (
            SimpleNamespace(experiment_id=self.experiments[name])
            if name in self.experiments
            else None
        )

    def create_experiment(self, name):
        return self.experiments.setdefault(name, "7")

    def search_runs(self, experiments, filter_string):
        wanted = filter_string.partition("'")[2].rstrip("'")
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=k))
            for k, r in self.runs.items()
            if r["id"] == wanted
        ]

    def create_run(self, experiment, tags, run_name):
        key = str(len(self.runs))
        self.runs[key] = {"id": tags["nnunet_id"], "name": run_name, "ended": False}
        return SimpleNamespace(info=SimpleNamespace(run_id=key))

    def update_run(self, run, status):
        self.runs[run]["ended"] = status != "RUNNING"

    def log_param(self, run, name, value):
        self.params[name] = value

    def log_metric(self, run, name, value, step=None):
        self.metrics.append((run, name, step))

    def set_terminated(self, run):
        self.runs[run]["ended"] = True


def test_mlflow_goes_on_in_the_same_run(registry, tmp_path, monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert train(registry("mlflow"), tmp_path, range(1), finish=False) == []
    assert train(registry("mlflow"), tmp_path, range(1, 2)) == []
    assert fake.runs == {
        "0": {
            "id": run_id(RECORD),
            "name": "Dataset001_Tiny default 3d_fullres fold 0",
            "ended": True,
        }
    }
    assert [step for _, name, step in fake.metrics if name == "mean_dice"] == [0, 1]
    assert ("0", "validation/1/Dice", None) in fake.metrics
    assert fake.params["trainer.odd_name_"] == 1


def test_folds_that_start_together_share_an_mlflow_experiment(registry, tmp_path, monkeypatch):
    class Busy(FakeMlflow):
        def create_experiment(self, name):
            super().create_experiment(name)  # by another fold, between the question and the answer
            raise RuntimeError("RESOURCE_ALREADY_EXISTS")

    fake = Busy()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert train(registry("mlflow"), tmp_path) == []
    assert fake.runs["0"]["ended"]


def test_a_server_that_is_gone_is_asked_once(registry, tmp_path, monkeypatch):
    """Libraries try again for minutes; a thousand epochs would wait for each of them."""
    asked = []

    class Gone(FakeMlflow):
        def log_metric(self, run, name, value, step=None):
            asked.append(step)
            raise ConnectionError("no answer")

    monkeypatch.setitem(sys.modules, "mlflow", Gone())
    (warning,) = train(registry("mlflow"), tmp_path, range(5))
    assert "is not logged: ConnectionError: no answer" in warning
    assert asked == [0]


def test_numbers_are_flat_and_finite():
    assert flat({"a": 1, "b": {"c": [2.0, None]}, "d": float("nan"), "e": "text"}, "x/") == {
        "x/a": 1.0,
        "x/b/c/1": 2.0,
    }
