"""Each check of trainers finds the one that is wrong in its way, and no other check does."""

import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from wrong_components import failures, own_checks

from nnunet_core.errors import TrainingError, UsageError


@dataclass
class Plain:
    """A right one, which the wrong ones change: gradient descent, a checkpoint each epoch."""

    epochs: int = 100
    iterations_per_epoch: int = 100

    def check(self, runtime):
        if runtime.device != "cpu" or runtime.precision != "float32":
            raise UsageError("only float32 on the CPU")

    def train(self, task):
        weights, checkpoint = (task.folder / n for n in ("weights.safetensors", "checkpoint.pt"))
        if weights.exists():
            return self.finished(task)
        torch.manual_seed(self.seed_of(task))
        network = task.network.build(task.configuration.network)
        optimizer = torch.optim.SGD(network.parameters(), self.rate(), momentum=0.9)
        done = self.restore(checkpoint, network, optimizer)
        loss = task.loss.build(
            batch_dice=False, ignore_label=task.labels.ignore, regions=bool(task.labels.regions)
        )
        for epoch in range(done, self.epochs):
            for iteration in range(self.iterations_per_epoch):
                rng = self.generator(task, epoch, iteration)
                self.step(task, network, optimizer, loss, rng)
            state = {"n": network.state_dict(), "o": optimizer.state_dict(), "epoch": epoch + 1}
            torch.save(state, checkpoint)
            self.tell(task, epoch)
        self.write(network, weights, task)
        return {"device": "cpu", "precision": "float32", "threads": "1"}

    def finished(self, task):
        return {}

    def seed_of(self, task):
        return task.seed

    def rate(self):
        return 0.05

    def restore(self, checkpoint, network, optimizer):
        if not checkpoint.exists():
            return 0
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["n"])
        optimizer.load_state_dict(state["o"])
        return state["epoch"]

    def generator(self, task, epoch, iteration):
        return np.random.default_rng([self.seed_of(task), epoch, iteration])

    def step(self, task, network, optimizer, loss, rng):
        images, label = self.patch(task, rng)
        optimizer.zero_grad()
        heads = network(images)
        value = loss(heads[0] if isinstance(heads, list | tuple) else heads, label)
        if not value.isfinite():
            self.broken()
        value.backward()
        optimizer.step()

    def broken(self):
        raise TrainingError("the loss is not finite")

    def patch(self, task, rng):
        case = task.store.open(task.training[rng.integers(len(task.training))])
        size = task.configuration.patch_size
        size = (1,) * (3 - len(size)) + tuple(size)
        window = []
        for whole, part in zip(case.spatial_shape, size, strict=True):
            start = int(rng.integers(whole - part + 1))
            window.append(slice(start, start + part))
        patch = task.configuration.patch_size
        images = torch.from_numpy(case.images[(slice(None), *window)]).reshape(1, -1, *patch)
        label = torch.from_numpy(case.label[tuple(window)]).reshape(1, 1, *patch).clamp(min=0)
        return images, self.target(task, label)

    def target(self, task, label):
        if not task.labels.regions:
            return label.long()
        maps = [torch.isin(label, torch.tensor(region)) for region in task.labels.regions]
        return torch.cat(maps, 1)

    def tell(self, task, epoch):
        task.epoch_finished({"epoch": epoch + 1, "train_loss": 0.5})

    def write(self, network, path, task):
        save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, path)


class SaysNothing(Plain):
    def train(self, task):
        return {} if super().train(task) == {} else {"device": "cpu"}


class KnowsNoRegions(Plain):
    def target(self, task, label):
        if task.labels.regions:
            raise TrainingError("regions are not supported")
        return super().target(task, label)


class WithoutNumbers(Plain):
    def write(self, network, path, task):
        if len(task.configuration.patch_size) == 2:
            network.apply(lambda m: [p.data.mul_(torch.nan) for p in m.parameters(recurse=False)])
        super().write(network, path, task)


class Uphill(Plain):
    def step(self, task, network, optimizer, loss, rng):
        super().step(task, network, optimizer, lambda *a: -loss(*a), rng)


class DrawsAnyhow(Plain):
    def generator(self, task, epoch, iteration):
        return np.random.default_rng()


class SeedOfItsOwn(Plain):
    def seed_of(self, task):
        return 0


class CountsFromZero(Plain):
    def tell(self, task, epoch):
        super().tell(task, epoch - 1)


class TellsTensors(Plain):
    def tell(self, task, epoch):
        task.epoch_finished({"epoch": epoch + 1, "train_loss": np.float32(0.5)})


class ForgetsMomentum(Plain):
    def restore(self, checkpoint, network, optimizer):
        fresh = torch.optim.SGD(network.parameters(), self.rate(), momentum=0.9)
        return super().restore(checkpoint, network, fresh)


class FromTheStart(Plain):
    def restore(self, checkpoint, network, optimizer):
        return 0


class DeafToCtrlC(Plain):
    def train(self, task):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return super().train(task)
        finally:
            signal.signal(signal.SIGINT, before)


class TrainsAgain(Plain):
    def finished(self, task):
        self.tell(task, 0)
        return {"device": "cpu"}


class WritesHere(Plain):
    def write(self, network, path, task):
        Path("log.txt").write_text("done")
        super().write(network, path, task)


class WritesBeside(Plain):
    def write(self, network, path, task):
        (path.parent.parent / "curve.png").write_bytes(b"")
        super().write(network, path, task)


class LeavesTemporaryFiles(Plain):
    def write(self, network, path, task):
        os.close(tempfile.mkstemp()[0])
        super().write(network, path, task)


class GoesOnWithNaN(Plain):
    def broken(self):
        pass


class TakesAnyDevice(Plain):
    def check(self, runtime):
        pass


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What `WritesHere` leaves behind lies in a folder of the test."""
    monkeypatch.chdir(tmp_path)


WRONG = {
    SaysNothing: "trainer_writes_the_weights_of_the_network",
    KnowsNoRegions: "trainer_writes_the_weights_of_the_network",
    WithoutNumbers: "trainer_writes_the_weights_of_the_network",
    Uphill: "trainer_lowers_the_loss",
    DrawsAnyhow: "trainer_follows_its_seed",
    SeedOfItsOwn: "trainer_follows_its_seed",
    CountsFromZero: "trainer_tells_of_every_epoch",
    TellsTensors: "trainer_tells_of_every_epoch",
    ForgetsMomentum: "trainer_goes_on_where_it_was_stopped",
    FromTheStart: "trainer_goes_on_where_it_was_stopped",
    DeafToCtrlC: "trainer_goes_on_where_it_was_stopped",
    TrainsAgain: "trainer_leaves_a_finished_fold",
    WritesHere: "trainer_writes_in_its_folder_alone",
    WritesBeside: "trainer_writes_in_its_folder_alone",
    LeavesTemporaryFiles: "trainer_writes_in_its_folder_alone",
    GoesOnWithNaN: "trainer_ends_at_a_loss_that_is_not_finite",
    TakesAnyDevice: "unknown_devices_are_refused",
}


def test_a_right_trainer_passes_every_check():
    assert failures("trainer", Plain) == {}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_trainer_fails_the_check_that_names_its_fault(wrong):
    assert set(failures("trainer", wrong)) == {WRONG[wrong]}


def test_every_check_of_trainers_has_one_that_fails_it():
    assert own_checks("trainer") == set(WRONG.values())
