"""Observers of Weights & Biases and MLflow: silent unless asked; one run that a resumed training
goes on with; one warning where something is missing or fails, and the training goes on.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from types import ModuleType, SimpleNamespace

import pytest

import nnunet_tracking.mlflow
import nnunet_tracking.wandb
from nnunet_builtin.observers.observer import run_id
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.testing import parametrize_with_checks

LINE = {"train_loss": -0.5, "validation_loss": None, "dice": [0.75, None], "mean_dice": 0.75}
SUMMARY = {"1": {"Dice": 0.875, "Precision": None}}
SETTINGS = {"epochs": 2, "odd(name)": 1, "long": "x" * 7000, **{f"of_{n}": n for n in range(120)}}
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
    components={
        "trainer": ComponentRecord(
            reference="builtin/v2",
            target="x:Y",
            distribution="d",
            version="1",
            settings=SETTINGS,
        )
    },
    started="2020-01-01",
)
OTHER = RECORD.model_copy(update={"fold": "1"})


@pytest.fixture
def registry(monkeypatch):
    """Return a function that discovers plugins with NNUNET_LOG set, as a new process does."""

    def discover(asked, **variables):
        monkeypatch.setenv("NNUNET_LOG", asked)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for module in (nnunet_tracking.mlflow, nnunet_tracking.wandb):
            module.plugin._logs.clear()
        return Registry.discover()

    return discover


def train(registry, folder, epochs=range(1, 3), finish=True, record=RECORD):
    """Notify observers as a training does; return the warnings."""
    shared = {"record": record, "folder": folder}
    warnings = registry.hooks.run_started(**shared)
    for epoch in epochs:
        warnings += registry.hooks.epoch_finished(metrics={"epoch": epoch, **LINE}, **shared)
    if finish:
        warnings += registry.hooks.run_finished(summary=SUMMARY, **shared)
    return warnings


def test_they_are_plugins_and_silent_unless_asked(registry, tmp_path):
    found = registry("")
    active = {info.name for info in found.plugins() if info.status == "active"}
    assert {"wandb", "mlflow"} <= active
    assert train(found, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_one_warning_with_the_command(registry, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    (warning,) = train(registry(f" {name.upper()} ,"), tmp_path)
    assert f"pip install 'nnunet-tracking[{name}]'" in warning


def test_a_library_that_fails_to_start_is_said_once(registry, tmp_path, monkeypatch):
    module = ModuleType("wandb")
    module.init = lambda **_: 1 / 0
    monkeypatch.setitem(sys.modules, "wandb", module)
    (warning,) = train(registry("wandb"), tmp_path)
    assert "'wandb'" in warning
    assert "ZeroDivisionError" in warning


@pytest.fixture
def fake_wandb(monkeypatch):
    """The arguments that `wandb.init` got, and everything after it."""
    calls, summary = [], {}
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        summary=summary,
        finish=lambda: calls.append(summary),
    )
    module = ModuleType("wandb")
    module.init = lambda **options: calls.append(options) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    return calls


def test_wandb_gets_one_resumable_run(registry, tmp_path, fake_wandb):
    assert train(registry("wandb"), tmp_path) == []
    options, first, second, end = fake_wandb
    assert (options["id"], options["resume"]) == (run_id(RECORD), "allow")
    assert (options["project"], options["dir"]) == ("nnunet", str(tmp_path))
    assert options["name"] == "Dataset001_Tiny default 3d_fullres fold 0"
    assert options["group"] == "Dataset001_Tiny default 3d_fullres"
    assert options["config"]["trainer.epochs"] == 2
    assert (first[0], second[0]) == (1, 2)
    assert first[1] == {"train_loss": -0.5, "dice/1": 0.75, "mean_dice": 0.75}
    assert end == {"validation/1/Dice": 0.875}
    json.dumps(options["config"])


def test_variables_of_wandb_count(registry, tmp_path, fake_wandb):
    variables = {"PROJECT": "p", "RUN_GROUP": "g", "NAME": "n", "DIR": "d"}
    train(registry("wandb", **{f"WANDB_{k}": v for k, v in variables.items()}), tmp_path)
    options = fake_wandb[0]
    assert [options[key] for key in ("project", "group", "name", "dir")] == ["p", "g", "n", "d"]


@pytest.mark.slow
def test_wandb_writes_offline_and_goes_on_with_its_run(registry, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs W&B: pip install 'nnunet-tracking[wandb]'")
    found = registry("wandb", WANDB_MODE="offline", WANDB_SILENT="true")
    assert train(found, tmp_path, range(1, 3), finish=False) == []
    nnunet_tracking.wandb.plugin._logs[tmp_path]._run.finish()  # the process is stopped
    assert train(registry("wandb"), tmp_path, range(3, 4)) == []
    # one file for each process; `wandb sync` joins those of one id
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [path.name for path in files] == [f"run-{run_id(RECORD)}.wandb"] * 2
    for written in ("mean_dice", "validation/1/Dice", "trainer.epochs", "Dataset001_Tiny"):
        assert was_written(files, written)


def was_written(files, text):
    """Return whether a text is in one of the files, which W&B writes in a process of its own."""
    for _ in range(100):
        if any(text.encode() in path.read_bytes() for path in files):
            return True
        time.sleep(0.1)
    return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """MLflow's tracking server on this machine, with a database in a folder."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process = None

    def start(self):
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        store = ("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}")
        command = [sys.executable, "-m", "mlflow", "server", *where, *store]
        with (self.folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"{self.address}/health").close()
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.3)
        raise TimeoutError((self.folder / "server.log").read_text())

    def stop(self):
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)  # with the workers that it started
            self._process.wait(30)
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("mlflow", reason="needs MLflow: pip install 'nnunet-tracking[mlflow]'")
    server = Server(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_a_server_keeps_the_run_that_a_resumed_training_goes_on_with(registry, tmp_path, server):
    import mlflow

    asked = {"MLFLOW_TRACKING_URI": server.address}
    assert train(registry("mlflow", **asked), tmp_path, range(1, 3), finish=False) == []
    client = mlflow.MlflowClient(server.address)
    experiment = client.get_experiment_by_name("Dataset001_Tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "RUNNING"
    assert train(registry("mlflow", **asked), tmp_path, range(3, 4)) == []
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "Dataset001_Tiny default 3d_fullres fold 0"
    assert run.data.tags["folder"] == str(tmp_path)
    history = client.get_metric_history(run.info.run_id, "mean_dice")
    assert [(point.step, point.value) for point in history] == [(n, 0.75) for n in (1, 2, 3)]
    assert run.data.metrics["validation/1/Dice"] == 0.875
    parameters = run.data.params
    assert (parameters["fold"], parameters["trainer.odd_name_"]) == ("0", "1")
    assert len(parameters["trainer.long"]) == 6000
    assert parameters["trainer.of_119"] == "119"
    named = {**asked, "MLFLOW_EXPERIMENT_NAME": "mine"}
    assert train(registry("mlflow", **named), tmp_path / "fold_1", record=OTHER) == []
    mine = client.get_experiment_by_name("mine")
    assert len(client.search_runs([mine.experiment_id])) == 1


@pytest.mark.slow
def test_a_server_that_goes_away_is_one_warning(registry, tmp_path, server):
    found = registry("mlflow", MLFLOW_TRACKING_URI=server.address)
    assert train(found, tmp_path, range(1, 2), finish=False) == []
    server.stop()
    shared = {"record": RECORD, "folder": tmp_path}
    warnings = []
    for epoch in range(2, 6):
        warnings += found.hooks.epoch_finished(metrics={"epoch": epoch, **LINE}, **shared)
    warnings += found.hooks.run_finished(summary=SUMMARY, **shared)
    (warning,) = warnings
    assert "is not logged" in warning
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


class FakeMlflow(ModuleType):
    """A client that keeps runs, as a tracking server does."""

    def __init__(self):
        super().__init__("mlflow")
        self.experiments, self.runs, self.logged = {}, {}, []
        self.MlflowClient = lambda: self
        self.entities = SimpleNamespace(Param=lambda *a: a, Metric=lambda *a: a)

    def get_experiment_by_name(self, name):
        number = self.experiments.get(name)
        return None if number is None else SimpleNamespace(experiment_id=number)

    def create_experiment(self, name):
        return self.experiments.setdefault(name, "7")

    def search_runs(self, experiments, filter_string):
        return []

    def create_run(self, experiment, tags, run_name):
        self.runs["0"] = {**tags, "ended": False}
        return SimpleNamespace(info=SimpleNamespace(run_id="0"))

    def log_batch(self, run, metrics=(), params=()):
        self.logged.append((len(metrics), len(params)))

    def set_terminated(self, run):
        self.runs[run]["ended"] = True


def test_folds_that_start_together_share_an_mlflow_experiment(registry, tmp_path, monkeypatch):
    class Busy(FakeMlflow):
        def create_experiment(self, name):
            super().create_experiment(name)  # by another fold, between the question and the answer
            raise RuntimeError("RESOURCE_ALREADY_EXISTS")

    fake = Busy()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert train(registry("mlflow"), tmp_path) == []
    assert fake.runs["0"]["ended"]
    assert fake.runs["0"]["nnunet_id"] == run_id(RECORD)


def test_an_epoch_is_one_request_and_no_request_is_too_large(registry, tmp_path, monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert train(registry("mlflow"), tmp_path) == []
    assert [count for count in fake.logged if count[0]] == [(3, 0), (3, 0), (1, 0)]
    parameters = [count for _, count in fake.logged if count]
    assert max(parameters) == 100
    assert sum(parameters) == 7 + 1 + len(SETTINGS)


def test_a_server_that_is_gone_is_asked_once(registry, tmp_path, monkeypatch):
    """Libraries try again for minutes; a thousand epochs would wait for each of them."""
    asked = []

    class Gone(FakeMlflow):
        def log_batch(self, run, metrics=(), params=()):
            if metrics:
                asked.append((metrics, dict(os.environ)))
                raise ConnectionError("no answer")

    monkeypatch.setitem(sys.modules, "mlflow", Gone())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    (warning,) = train(registry("mlflow"), tmp_path, range(1, 6))
    assert "is not logged: ConnectionError: no answer" in warning
    ((_, variables),) = asked
    assert variables["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert variables["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@parametrize_with_checks([("observer", "wandb"), ("observer", "mlflow")])
def test_contract(component, check):
    check(component)
