"""The stream of batches: the same in any number of processes and after a restart; what breaks is
told.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from batch_streams import PATCH, drawn_store, stream
from listening import Listener

from nnunet_builtin.augmentation.v2 import AugmentationV2, NoAugmentation
from nnunet_builtin.training import loading
from nnunet_builtin.training.loading import Iteration, steps_of
from nnunet_core.errors import TrainingError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return drawn_store(tmp_path_factory.mktemp("prepared"))


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for (step, batch), (expected_step, expected_batch) in zip(found, expected, strict=True):
        assert step == expected_step
        assert batch["names"] == expected_batch["names"]
        assert torch.equal(batch["images"], expected_batch["images"])
        assert torch.equal(batch["label"], expected_batch["label"])


def test_order_types_and_shapes(store):
    found = list(stream(store))
    order = [(True, i) for i in range(4)] + [(False, i) for i in range(2)]
    assert [step for step, _ in found] == [Iteration(e, i, t) for e in range(2) for t, i in order]
    for step, batch in found:
        assert batch["images"].shape == batch["label"].shape == (2, 1, *PATCH)
        assert batch["images"].dtype == torch.float32
        assert batch["label"].dtype == torch.int16
        assert batch["label"].min() == 0
        assert set(batch["names"]) <= (
            {"case_0", "case_1"} if step.training else {"case_2", "case_3"}
        )


@pytest.mark.parametrize("position", [0, 1, 5, 6])
@pytest.mark.parametrize("validation", [0, 2])
def test_steps_are_those_of_the_epochs_without_what_was_done(position, validation):
    epoch = [(True, i) for i in range(4)] + [(False, i) for i in range(validation)]
    expected = [Iteration(e, i, t) for e in range(3, 6) for t, i in epoch][position:]
    steps = steps_of(range(3, 6), 4, validation, position)
    assert list(steps) == expected
    assert len(steps) == len(expected)
    assert list(steps[3:]) == expected[3:]
    assert steps[2] == expected[2]
    assert not steps_of(range(3, 3), 4, validation, position)


def test_a_training_of_any_length_is_no_list_in_memory():
    steps = steps_of(range(10**6), 10**6, 10**6)
    assert len(steps) == 2 * 10**12
    assert steps[-1] == Iteration(10**6 - 1, 10**6 - 1, False)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(store, workers):
    assert_equal(list(stream(store, workers)), list(stream(store)))


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_after_an_epoch_changes_nothing(store, workers):
    assert_equal(list(stream(store, workers, epochs=range(1, 2))), list(stream(store))[6:])


def test_going_on_within_an_epoch_changes_nothing(store):
    assert_equal(list(stream(store, position=3)), list(stream(store))[3:])


def test_processes_share_a_batch_without_changing_it(store):
    for (_, first), (_, second), (_, whole) in zip(
        stream(store, positions=[0]), stream(store, positions=[1]), stream(store), strict=True
    ):
        assert first["names"] + second["names"] == whole["names"]
        for key in ("images", "label"):
            assert torch.equal(torch.cat([first[key], second[key]]), whole[key])


def test_every_batch_is_another(store):
    images = [batch["images"] for seed in (3, 4) for _, batch in stream(store, seed=seed)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(images, 2))


def test_training_and_validation_on_the_same_cases_draw_different_patches(store):
    found = list(
        stream(store, augmentation=NoAugmentation(), names=("case_2", "case_3"), epochs=range(1))
    )
    assert not torch.equal(found[0][1]["images"], found[4][1]["images"])


def test_validation_patches_are_not_augmented(store):
    volumes = [store.open(name).images[:][0] for name in ("case_2", "case_3")]
    known = np.unique(np.concatenate([[0.0], *map(np.ravel, volumes)]))
    for step, batch in stream(store, augmentation=AugmentationV2(gamma_probability=1)):
        assert np.isin(batch["images"].numpy(), known).all() == (not step.training)


def test_the_training_process_keeps_its_random_state(store):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(stream(store, 1))
    list(stream(store, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_closing_ends_the_workers(store):
    with contextlib.closing(stream(store, 2, epochs=range(1000))) as batch_stream:
        next(batch_stream)
        assert len(multiprocessing.active_children()) >= 2
        workers = set(multiprocessing.active_children())
    assert not workers & set(multiprocessing.active_children())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_case_that_cannot_be_read_is_named(store, workers):
    with pytest.raises(
        TrainingError, match=r"Batch 1 of epoch 1 \(training\).*case_9.*nnunet preprocess"
    ):
        list(stream(store, workers, names=("case_9",)))


class Broken(NoAugmentation):
    def augment(self, batch, configuration, seed):
        return batch["no such key"]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_cause_of_a_broken_augmentation_stays_attached(store, workers):
    with pytest.raises(
        TrainingError, match=r"cases case_\d, case_\d, .*KeyError: 'no such key'"
    ) as caught:
        list(stream(store, workers, augmentation=Broken()))
    assert "in augment" in str(caught.value.__cause__)


class Killed(NoAugmentation):
    def augment(self, batch, configuration, seed):
        os.kill(os.getpid(), signal.SIGKILL)


class Trouble(NoAugmentation):
    """Kills or blocks its process at a sample, as often as there are files in a folder to take
    away.
    """

    def __init__(self, folder, stuck=False, sample=5):
        self.folder = folder
        self.stuck = stuck
        self.sample = sample
        self.samples = 0

    def augment(self, batch, configuration, seed):
        self.samples += 1
        for path in sorted(self.folder.iterdir())[: self.samples == self.sample]:
            path.unlink()
            time.sleep(1000) if self.stuck else os.kill(os.getpid(), signal.SIGKILL)
        return super().augment(batch, configuration, seed)


@pytest.mark.slow
@pytest.mark.parametrize("stuck", [False, True])
def test_a_worker_that_dies_or_is_stuck_is_named_and_replaced(store, tmp_path, stuck):
    (tmp_path / "once").touch()
    listener = Listener()
    found = list(
        stream(store, 1, augmentation=Trouble(tmp_path, stuck), report=listener, patience=6.0)
    )
    assert_equal(found, list(stream(store, augmentation=NoAugmentation())))
    (warning,) = listener.warnings
    assert ("stuck" if stuck else "worker died") in warning
    assert "of epoch 1 (training)" in warning
    assert "case_" in warning
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_worker_that_is_stuck_on_its_first_batch_is_named_as_soon(store, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_STARTING", 1000)
    (tmp_path / "once").touch()
    listener = Listener()
    list(
        stream(
            store,
            1,
            augmentation=Trouble(tmp_path, stuck=True, sample=1),
            report=listener,
            patience=6.0,
        )
    )
    (warning,) = listener.warnings
    assert "stuck" in warning
    assert "batch 1 of epoch 1 (training)" in warning


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_training(store, tmp_path):
    with pytest.raises(
        TrainingError, match=r"failed 3 times at batch 1 of epoch 1.*case_.*worker died.*--workers"
    ):
        list(stream(store, 1, augmentation=Killed()))
    assert not multiprocessing.active_children()


class Slow(NoAugmentation):
    def augment(self, batch, configuration, seed):
        time.sleep(2.5)
        return super().augment(batch, configuration, seed)


@pytest.mark.slow
def test_slow_workers_are_waited_for(store, monkeypatch):
    monkeypatch.setattr(loading, "_CHECK_SECONDS", 1)
    slow = list(stream(store, 1, augmentation=Slow(), epochs=range(1), training_iterations=2))
    fast = list(
        stream(store, 0, augmentation=NoAugmentation(), epochs=range(1), training_iterations=2)
    )
    assert_equal(slow, fast)


KILLED_TRAINING = """
import sys, time
from pathlib import Path
from batch_streams import stream
from nnunet_core.store.prepared import PreparedStore
if __name__ == "__main__":
    batches = stream(PreparedStore(Path(sys.argv[1])), 2, epochs=range(1000))
    next(batches)
    import psutil
    print([child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    time.sleep(100)
"""


@pytest.mark.slow
def test_workers_of_a_killed_training_end(store, tmp_path):
    script = tmp_path / "training.py"
    script.write_text(KILLED_TRAINING)
    command, paths = [sys.executable, str(script), str(store.folder)], os.pathsep.join(sys.path)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as training:
        children = json.loads(training.stdout.readline())
        assert len(children) >= 3
        training.kill()
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [child for child in children if psutil.pid_exists(child)]
