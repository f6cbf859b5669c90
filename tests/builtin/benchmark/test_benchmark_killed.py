"""Killed twice, driver and worker, a benchmark ends with the scores of an undisturbed one."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from commands import nnunet
from tiny_dataset import make_tiny

pytestmark = pytest.mark.slow
BENCH = """
name = "killed"
datasets = ["Dataset001_Tiny"]
baseline = "default"
folds = [0]
seeds = [1, 2]
variants.default = {}
variants.topk = {loss = "dice_topk"}

[settings]
planner = {max_batch_size = 2, base_features = 4}
trainer = {epochs = 3, iterations_per_epoch = 2, validation_iterations = 1}
predictor = {mirroring = false}
"""


def workspace(folder):
    folder.mkdir()
    make_tiny(folder / "Dataset001_Tiny")
    (folder / "bench.toml").write_text(BENCH)
    return folder


def command(folder, verb="run"):
    return ("benchmark", verb, folder / "bench.toml", "--workspace", folder / "ws")


def started(folder):
    words = [sys.executable, "-m", "nnunet_cli", *command(folder)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(folder, pattern):
    end = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern}"
        time.sleep(0.05)


def kill_a_worker(folder):
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "nnunet_builtin.benchmark.work" in words and str(folder) in words[-1]:
            with contextlib.suppress(psutil.Error):
                process.kill()
                return


def test_killed_twice_it_ends_with_the_scores_of_an_undisturbed_one(tmp_path):
    plain, killed = workspace(tmp_path / "plain"), workspace(tmp_path / "killed")
    done = nnunet(*command(plain))
    assert done.returncode == 0, done.stderr
    for pattern in ("ws/**/train/**/began.json", "ws/**/fold_0/run.json"):
        driver = started(killed)
        wait_for(killed, pattern)
        kill_a_worker(killed)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    done = nnunet(*command(killed))
    assert done.returncode == 0, done.stderr
    scores = [folder / "ws/benchmarks/killed/scores.csv" for folder in (plain, killed)]
    assert scores[0].read_bytes() == scores[1].read_bytes()
    assert scores[0].read_text().count("validated") > 0
    records = sorted(killed.glob("ws/benchmarks/killed/jobs/**/ended.json"))
    times = {path: path.stat().st_mtime_ns for path in records}
    assert nnunet(*command(killed)).returncode == 0  # nothing is left to do
    assert times == {path: path.stat().st_mtime_ns for path in records}
    assert "Everything is done" in nnunet(*command(killed, "status")).stdout
