"""`nnunet benchmark stop` and `status --watch`, beside a driver as users have it."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import slow_components
from commands import nnunet
from tiny_dataset import make_tiny

from nnunet_builtin.benchmark import records

BENCH = """
name = "stopped"
datasets = ["Dataset001_Tiny"]
baseline = "slow"
folds = [0]
variants.slow = {%s}

[settings]
planner = {max_batch_size = 2, base_features = 4}
trainer = {epochs = 3, iterations_per_epoch = 20, validation_iterations = 1}
predictor = {mirroring = false}
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Yield a function that makes a benchmark with a changed variant, and returns its folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(slow_components.__file__).parent))
    monkeypatch.setenv(slow_components.HURRY, str(tmp_path / "hurry"))

    def make(variant):
        make_tiny(tmp_path / "Dataset001_Tiny")
        (tmp_path / "bench.toml").write_text(BENCH % variant)
        return tmp_path

    yield make
    (tmp_path / "hurry").touch()  # ends what a failed test has left


def words(folder, verb, *options):
    return ("benchmark", verb, folder / "bench.toml", "--workspace", folder / "ws", *options)


@contextlib.contextmanager
def beside(folder, verb, *options, **streams):
    """Run a command beside the test; yield its process."""
    command = [sys.executable, "-m", "nnunet_cli", *map(str, words(folder, verb, *options))]
    process = subprocess.Popen(command, **{"stdout": subprocess.DEVNULL, **streams})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def watching(folder):
    """Watch on a terminal; yield the process, and what it has shown so far."""
    shown, (ours, its) = bytearray(), pty.openpty()

    def read():
        with contextlib.suppress(OSError):  # the terminal is closed
            while part := os.read(ours, 10_000):
                shown.extend(part)

    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with beside(folder, "status", "--watch", stdout=its, env=environment) as process:
        os.close(its)
        (reader := threading.Thread(target=read)).start()
        yield process, shown
    reader.join()
    os.close(ours)


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def logs(folder, stage):
    jobs = folder / "ws/benchmarks/stopped/jobs/Dataset001_Tiny"
    return "".join(path.read_text() for path in jobs.glob(f"{stage}/**/log.txt"))


@pytest.mark.slow
def test_asked_to_stop_jobs_save_their_work_and_a_later_run_goes_on(bench):
    folder = bench('trainer = "slow_components:SlowTrainer"')
    with beside(folder, "run", stderr=subprocess.PIPE, text=True) as driver:
        until(lambda: list(folder.rglob("job.json")))
        with watching(folder) as (watcher, shown):
            until(lambda: b"running: Dataset001_Tiny/train" in shown)  # it is drawn anew
            until(lambda: "train fold_0: 0/" in logs(folder, "train"))
            done = nnunet(*words(folder, "stop"))
            assert watcher.wait(60) == 0  # it ends by itself
        said = driver.communicate(timeout=60)[1]
    assert driver.returncode == 128 + signal.SIGINT
    assert "asking 1 job to save all work and stop" in said
    assert done.returncode == 0, done.stderr
    assert f"asking process {driver.pid}" in done.stderr
    assert "stopped 1 job" in done.stdout
    assert f"run by process {driver.pid}".encode() in shown
    assert b"Nobody runs it now" in shown[shown.rindex(b"running") :]
    (folder / "hurry").touch()
    done = nnunet(*words(folder, "run"))
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in logs(folder, "train")
    assert done.stderr.count("done: ") == 1  # plans and prepared cases were
    done = nnunet(*words(folder, "stop"))
    assert (done.returncode, "nothing to stop" in done.stdout) == (0, True)
    assert "Nobody" not in nnunet(*words(folder, "status")).stdout


@pytest.mark.slow
def test_the_jobs_of_a_driver_that_was_killed_are_stopped(bench):
    folder = bench('planner = "slow_components:SlowPlanner"')
    with beside(folder, "run"):
        until(lambda: "fingerprint" in logs(folder, "plan"))
    (handles,) = folder.rglob("handles.json")
    (handle,) = records.Handles.read(handles).handles
    process = psutil.Process(json.loads(handle)[0])
    done = nnunet(*words(folder, "stop"))
    assert done.returncode == 0, done.stderr
    assert "asking" not in done.stderr
    assert "stopped 1 job" in done.stdout
    assert not process.is_running()
    (ended,) = folder.rglob("ended.json")
    assert records.Ended.read(ended).is_stopped  # no failure
    status = nnunet(*words(folder, "status")).stdout
    assert "Nobody runs it now. It goes on with: nnunet benchmark run" in " ".join(status.split())
