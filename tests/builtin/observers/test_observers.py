"""Observers: silent unless asked, one warning when the library is missing, and what they write."""

import json
import re
import sys
from pathlib import Path

import pytest

from nnunet_builtin.observers.observer import Observer, flat
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord, FoldRecord

PAGE = Path(__file__).parents[3] / "docs/how-to/watch-a-training.md"
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
            if info.name == "tensorboard":
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
    assert "tensorboard" in {info.name for info in found.plugins() if info.status == "active"}
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


def test_a_missing_library_is_one_warning_that_names_the_extra(registry, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    (warning,) = train(registry(" TensorBoard ,"), tmp_path)
    assert "pip install 'nnunet-core[tensorboard]'" in warning


def test_an_unknown_name_is_a_warning_with_the_nearest(registry, tmp_path):
    (warning,) = train(registry("tensorbord"), tmp_path)
    assert "Did you mean 'tensorboard'" in warning


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_an_observer_of_another_package_is_a_warning_that_names_it(
    registry, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(Observer, "names", ["tensorboard"])
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", "wandb,mlflow")
    (warning,) = train(registry(name), tmp_path)
    assert f"pip install 'nnunet-tracking[{name}]'" in warning


def test_the_logger_of_the_page_writes_lines(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(Observer, "names", ["tensorboard"])
    (code,) = re.findall(r'```python title="my_log.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    module = {}
    exec(code, module)
    found = registry("lines")
    found.hooks.register(module["plugin"], "lines")
    assert train(found, tmp_path) == []
    lines = [json.loads(line) for line in (tmp_path / "my_log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, -1]
    assert lines[0]["mean_dice"] == 0.75
    assert lines[2]["validation/1/Dice"] == 0.875


def test_numbers_are_flat_and_finite():
    assert flat({"a": 1, "b": {"c": [2.0, None]}, "d": float("nan"), "e": "text"}, "x/") == {
        "x/a": 1.0,
        "x/b/c/1": 2.0,
    }
