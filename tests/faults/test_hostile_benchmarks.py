"""Benchmarks that strangers wrote, and folders of benchmarks that something has damaged: refused
with one message of a few lines, or done again; nothing hangs.
"""

import dataclasses
import json
import os
import time

import pytest
from commands import nnunet
from listening import Listener
from tiny_dataset import make_tiny

from nnunet_builtin.benchmark import matrix, records, scheduling
from nnunet_builtin.benchmark.graph import Job, ordered
from nnunet_builtin.benchmark.leases import is_leased
from nnunet_builtin.benchmark.scheduling import Board
from nnunet_builtin.executors.local import LocalExecutor
from nnunet_core.contracts.executor import Status
from nnunet_core.errors import PluginError, StorageError, UsageError
from nnunet_core.runtime import files

GOOD = 'name = "b"\ndatasets = ["data"]\nbaseline = "default"\nvariants.default = {}\nfolds = [0]\n'
TWO = "variants.Default = {}\n"
HOSTILE = {
    "nested without end": ("settings.trainer." + "a." * 5000 + "a = 1", "tables lie in tables"),
    "nested lists": ("settings.trainer.epochs = " + "[" * 60 + "]" * 60, "tables lie in tables"),
    "too many trainings": (f"seeds = {list(range(8000))}\n[variants.b]\n[variants.c]", "24,000"),
    "a seed thousands of times": (f"seeds = [{'7,' * 40_000}]", "seeds holds 7 twice"),
    "a long name": (f"variants.{'x' * 50_000} = {{}}", "at most 100 characters"),
    "many wrong entries": ("".join(f"x{n} = 1\n" for n in range(5000)), "And 4990 more"),
    "names that differ in case": (TWO, "default, Default: not every disk"),
    "a long chain": ('previous = {a = "b", b = "c", c = "d", d = "e"}', "more than 4 stages"),
    "a word with a zero": ('arguments.train = ["a\\u0000"]', "arguments.train.0"),
    "a large file": ("#" * 100_000, "more than 100000 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_a_short_answer_at_once(tmp_path, name):
    text, message = HOSTILE[name]
    path = tmp_path / "bench.toml"
    path.write_text(GOOD + text)
    start = time.monotonic()
    with pytest.raises(UsageError, match=message) as caught:
        matrix.read(path)
    assert len(str(caught.value)) < 2000
    assert time.monotonic() - start < 20


def test_a_mark_at_the_start_of_a_file_is_no_error(tmp_path):
    (tmp_path / "bench.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())  # of Windows
    assert matrix.read(tmp_path / "bench.toml").name == "b"


@pytest.mark.parametrize(
    ("test", "message"),
    [("dataset.json", "dataset.json is no folder"), ("nowhere", "nowhere does not exist")],
)
def test_a_test_set_that_is_no_folder_is_named(tmp_path, test, message):
    make_tiny(tmp_path / "data")
    (tmp_path / "bench.toml").write_text(f'{GOOD}test.data.images = "{test}"')
    done = nnunet("benchmark", "run", tmp_path / "bench.toml", "--workspace", tmp_path / "ws")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_case_whose_name_jobs_would_refuse_is_refused_before_them(tmp_path):
    data = make_tiny(tmp_path / "data")
    for path in (data / "imagesTr" / "case_0_0000.nii.gz", data / "labelsTr" / "case_0.nii.gz"):
        path.rename(path.with_name(path.name.replace("case_0", "a\\b")))
    (tmp_path / "bench.toml").write_text(GOOD)
    done = nnunet("benchmark", "run", tmp_path / "bench.toml", "--workspace", tmp_path / "ws")
    assert done.returncode == 1
    assert "cannot be the name of a file" in done.stderr
    assert not list((tmp_path / "ws").rglob("job.json"))


def board_of(root):
    jobs = [Job(f"data/select/{n}", "select", words=("--version",)) for n in ("a", "b")]
    return Board(ordered(jobs), root, LocalExecutor(), "executors/local", retries=0)


@pytest.mark.parametrize("name", [records.LEASE, records.HANDLES, records.ENDED, records.BEGAN])
def test_a_pipe_in_the_place_of_a_record_blocks_nobody(tmp_path, name):
    folder = tmp_path / "jobs" / "data" / "select" / "a"
    folder.mkdir(parents=True)
    os.mkfifo(folder / name)
    board = board_of(tmp_path)
    board.look()
    assert not is_leased(folder)
    assert not board.running
    assert set(board.states().values()) == {"ready"}


def test_a_job_whose_log_is_a_pipe_fails_and_the_others_are_done(tmp_path):
    folder = tmp_path / "jobs" / "data" / "select" / "a"
    folder.mkdir(parents=True)
    os.mkfifo(folder / records.LOG)
    board = board_of(tmp_path)
    scheduling.run(board, Listener())
    assert set(board.done) == {"data/select/b"}
    assert "log.txt is no file" in board.failed["data/select/a"]


HANDLES = ["x", "[1]", "null", "{}", "[1, 2.0, 3]", '["a", 1.0, []]', f"[{10**30}, 1.0, []]"]
HANDLES += ["[-1, 1.0, []]", f"[1, 1.0, {'[' * 2000}", '[1, "x", []]']


def test_handles_that_say_nothing_are_of_tasks_that_ended(tmp_path):
    folder = tmp_path / "jobs" / "data" / "select" / "a"
    document = {"executor": "executors/local", "handles": HANDLES}
    folder.mkdir(parents=True)
    (folder / records.HANDLES).write_text(json.dumps(document))
    board = board_of(tmp_path)
    board.look()
    assert not board.running
    LocalExecutor().stop(HANDLES)


@pytest.mark.parametrize("read", [files.read_json, files.Document.read])
def test_a_pipe_in_the_place_of_json_blocks_nobody(tmp_path, read):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(StorageError, match="no regular file"):
        read(tmp_path / "run.json")


def added(folder):
    make_tiny(folder / "data")
    make_tiny(folder / "taken_out")
    (folder / "bench.toml").write_text(GOOD.replace('"data"', '"data", "taken_out"'))
    (folder / "them.csv").write_text(
        "dataset,case,label,Dice\ndata,case_0,1,1\ntaken_out,case_0,1,1\n"
    )
    words = ("--workspace", folder / "ws")
    assert nnunet("benchmark", "add", folder / "bench.toml", folder / "them.csv", *words).stdout
    return lambda: nnunet("benchmark", "report", folder / "bench.toml", *words)


def test_foreign_results_of_a_dataset_that_was_taken_out_are_left_out(tmp_path):
    report = added(tmp_path)
    (tmp_path / "bench.toml").write_text(GOOD)
    done = report()
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "ws" / "benchmarks" / "b" / "report.html").read_text()
    assert "them" in page
    assert "taken_out" not in page


def test_no_file_from_elsewhere_gets_into_a_report(tmp_path):
    report = added(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("a private key")
    root = tmp_path / "ws" / "benchmarks" / "b"
    (root / "stolen.csv").symlink_to(secret)
    os.mkfifo(root / "pipe.md")
    (root / "mine.md").write_bytes(b"caf\xe9")
    assert report().returncode == 0
    page = (root / "report.html").read_text()
    assert "mine.md" in page
    assert "stolen.csv" not in page


class Broken(LocalExecutor):
    """Answers what no executor should, or loses all that it is given."""

    def __init__(self, method="", answer=None):
        super().__init__()
        self.__dict__.update(method=method, answer=answer)

    def start(self, tasks, running):
        if self.method == "start":
            return self.answer
        return {task.name: f"handle of {task.name}" for task in tasks}

    def look(self, handles):
        if self.method == "look" and handles:
            return self.answer
        return {handle: Status("ended", is_lost=True) for handle in handles}


ANSWERS = [None, ["data/select/a"], {"nope": "h"}, {"data/select/a": 5}]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_executor_that_starts_nonsense_is_named(tmp_path, answer):
    board = dataclasses.replace(board_of(tmp_path), executor=Broken("start", answer))
    scheduling.run(board, Listener())
    assert board.failed.keys() == board.graph.jobs.keys()
    assert "executors/local is broken: its method 'start'" in board.failed["data/select/a"]


@pytest.mark.parametrize("answer", [None, {}, {"handle of data/select/a": "ended"}])
def test_an_executor_that_sees_nonsense_is_named(tmp_path, answer):
    board = dataclasses.replace(board_of(tmp_path), executor=Broken("look", answer))
    with pytest.raises(PluginError, match=r"its method 'look' returned"):
        scheduling.run(board, Listener())


def test_a_job_that_every_machine_takes_back_fails_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduling, "_POLL_SECONDS", 0)
    monkeypatch.setattr(scheduling, "_MOST_STOPS", 3)
    board = dataclasses.replace(board_of(tmp_path), executor=Broken())
    scheduling.run(board, Listener())
    assert set(board.failed.values()) == {"its machine took it back 4 times"}
