"""Trainings that are killed, run out of disk, or find a damaged checkpoint."""

import resource
import shutil
import signal
import subprocess
import time

import kill_training
import pytest
import torch
from commands import nnunet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """The workspace of a training that was stopped after an epoch or more."""
    dataset = kill_training.make_dataset(tmp_path_factory.mktemp("stopped"))
    process = subprocess.Popen(
        kill_training.command(dataset, 0), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(dataset.parents[1].rglob("checkpoint.pt")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.wait()
    return dataset.parents[1]


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of the stopped training: its dataset and its fold's folder, with a checkpoint."""
    workspace = shutil.copytree(stopped_once, tmp_path / "ws")
    (checkpoint,) = workspace.glob("results/*/*/*/fold_0/checkpoint.pt")
    return next(workspace.glob("raw/*")), checkpoint.parent


def train(dataset):
    return nnunet(*kill_training.command(dataset, 0)[3:])


def one_message(done):
    """Return the message of a failed command; there is nothing else that a user would have to
    read.
    """
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return message


@pytest.mark.timeout(600)
def test_killed_trainings_end_with_the_weights_of_an_undisturbed_one(tiny):
    hits, wrong = kill_training.killed_trainings(tiny, 2, 0, workers=1)
    assert len(hits) == 2
    assert len(wrong) >= 2
    assert not any(wrong), hits


def test_half_written_files_of_a_killed_training_are_removed(stopped):
    dataset, fold = stopped
    leftovers = fold / ".checkpoint.pt.abc.tmp", fold / "validation" / ".case_0.nii.gz.abc.tmp"
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    assert train(dataset).returncode == 0
    assert not any(path.exists() for path in leftovers)


def test_a_disk_that_is_full_when_a_checkpoint_is_written_leaves_the_last_one(stopped):
    dataset, fold = stopped
    before = (fold / "checkpoint.pt").read_bytes()

    def little_space():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = len(before) // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = kill_training.command(dataset, 0)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=little_space
    )
    message = one_message(done)
    assert "No space left" in message
    assert "checkpoint.pt" in message
    assert (fold / "checkpoint.pt").read_bytes() == before
    assert not list(fold.glob(".*.tmp"))
    done = train(dataset)
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stderr


def empty(content):
    return b""


def truncated(content):
    return content[: len(content) // 2]


def overwritten(content):
    return content[: len(content) // 3] + bytes(1000) + content[len(content) // 3 + 1000 :]


def no_archive(content):
    return b"hello world " * 1000


@pytest.mark.parametrize(
    "damage", [empty, truncated, overwritten, no_archive], ids=lambda damage: damage.__name__
)
def test_a_damaged_checkpoint_is_one_message_that_says_what_to_do(stopped, damage):
    dataset, fold = stopped
    path = fold / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    message = one_message(train(dataset))
    assert str(path) in message
    assert "Delete it to train this fold from the start" in message
    assert path.read_bytes() == damaged
    path.unlink()
    done = train(dataset)
    assert done.returncode == 0, done.stderr
    assert "going on" not in done.stderr


def test_a_checkpoint_of_another_network_is_one_message(stopped):
    dataset, fold = stopped
    path = fold / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    content["network"]["heads.0.weight"] = torch.zeros(1)
    torch.save(content, path)
    assert "Delete it to train this fold from the start" in one_message(train(dataset))
