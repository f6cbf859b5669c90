"""Preprocessing that is killed, or runs twice at once: nothing is done twice, nothing half done is
trusted.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from nnunet_core.store.prepared import PreparedStore

pytestmark = pytest.mark.slow
CASES = 40


def start(dataset, *options):
    command = [
        sys.executable,
        "-m",
        "nnunet_cli",
        "preprocess",
        str(dataset),
        "--workspace",
        str(dataset.parents[1]),
    ]
    return subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def records(dataset):
    return {
        path.name: path.stat().st_mtime_ns
        for path in dataset.parents[1].glob("preprocessed/*/prepared/*/case*.json")
    }


def store(dataset):
    (folder,) = (dataset.parents[1] / "preprocessed" / dataset.name / "prepared").iterdir()
    return PreparedStore(folder)


def test_a_killed_preprocessing_goes_on_with_the_cases_that_are_missing(many):
    process = start(many)
    while len(records(many)) < 3 and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = records(many)
    assert 3 <= len(done) < CASES
    process = start(many)
    _, err = process.communicate()
    assert process.returncode == 0, err
    after = records(many)
    assert len(after) == CASES
    assert {name: after[name] for name in done} == done
    assert f"preprocess (default): {len(done)}/{CASES}" in err
    for name in store(many).names():
        store(many).open(name, verify=True)


def test_two_runs_at_once_prepare_every_case_once(many):
    first, second = start(many), start(many)
    outputs = [process.communicate() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert len(records(many)) == CASES
    for name in store(many).names():
        store(many).open(name, verify=True)
    assert not list(many.parents[1].rglob("*.tmp"))
    assert not list(many.parents[1].rglob(".lock"))
    assert sum(f"preprocess (default): 0/{CASES}" in err for _, err in outputs) == 1


def test_a_limit_of_memory_lets_one_case_work_at_a_time(many):
    process = start(many, "--processes", "2", "--memory-gb", "0.1")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert len(records(many)) == CASES
