"""What an epoch of a training does: rates, online evaluation, the best weights, batches on the
device, and what goes wrong.
"""

import contextlib
import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import small_training as small
import torch
from safetensors.torch import load_file

from nnunet_builtin.augmentation.v2 import AugmentationV2, AugmentationV2Torch
from nnunet_builtin.computing.computation import computing
from nnunet_builtin.computing.devices import resolve
from nnunet_builtin.losses.dice_ce import DiceCE
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.training import loop as training_loop
from nnunet_builtin.training.checkpoint import CHECKPOINT
from nnunet_builtin.training.loop import BEST_WEIGHTS, METRICS, Loop
from nnunet_builtin.training.optimization import learning_rate, momentum
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.errors import TrainingError
from nnunet_core.stages.evaluate import dice, joint_counts
from nnunet_core.store.models import WEIGHTS


class Kept(PlainUNet):
    """Keeps the network that it builds."""

    def build(self, spec):
        self.built = super().build(spec)
        return self.built


class Answering(torch.nn.Module):
    """A network of one parameter that always gives the same logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.scale = logits, torch.nn.Parameter(torch.ones(1))

    def forward(self, _):
        return [self.logits * self.scale, self.logits[:, :, ::2, ::2, ::2] * self.scale]


def loop_of(folder, settings=None, **changes):
    task = small.make_task(folder, **changes)
    return Loop(
        TrainerV2(**{**small.SETTINGS, **(settings or {})}), task, resolve(task.runtime)
    ).open()


def lines_of(folder):
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def drawn_batch(values, size=2):
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.normal(size=(size, 1, *small.PATCH)).astype(np.float32))
    label = torch.from_numpy(random.integers(0, values, (size, 1, *small.PATCH)).astype(np.int16))
    return {"images": images, "label": label, "names": ["case_0", "case_1"]}


@pytest.mark.parametrize("declared", [small.CLASSES, {**small.CLASSES, **small.IGNORE}])
def test_the_dice_of_an_epoch_is_that_of_its_patches_together(tmp_path, declared):
    loop, batch = loop_of(tmp_path / "fold_0", declared=declared), drawn_batch(len(declared))
    logits = torch.from_numpy(
        np.random.default_rng(1).normal(size=(2, 3, *small.PATCH)).astype(np.float32)
    )
    loop.state.network = Answering(logits)
    predicted = logits.argmax(1).numpy().reshape(-1, 8, 8)
    label = batch["label"].numpy().reshape(-1, 8, 8)
    joint = joint_counts(predicted, label, small.labels_of(declared))
    for times in (1, 2):  # counts add up
        loop._validation_step(batch)
        found, mean = training_loop._dice(loop.state.progress.counts)
        assert loop.state.progress.counts[0].tolist() == [times * joint[1, 1], times * joint[2, 2]]
        assert found == pytest.approx([dice(joint, [1]), dice(joint, [2])])
        assert mean == pytest.approx(np.mean(found))


def test_the_dice_of_regions_is_that_of_their_voxels(tmp_path):
    declared = {**small.REGIONS, **small.IGNORE}
    loop, batch = loop_of(tmp_path / "fold_0", declared=declared), drawn_batch(4)
    logits = torch.from_numpy(
        np.random.default_rng(1).normal(size=(2, 2, *small.PATCH)).astype(np.float32)
    )
    loop.state.network = Answering(logits)
    loop.loss = lambda heads, labels: torch.zeros(())
    loop._validation_step(batch)
    label = batch["label"][:, 0]
    for region, values in enumerate(((1, 2), (2,))):
        true = sum(label == value for value in values).bool()
        predicted = (logits[:, region] > 0) & (label != 3)
        expected = [
            int((predicted & true).sum()),
            int((predicted & ~true).sum()),
            int((~predicted & true).sum()),
        ]
        assert loop.state.progress.counts[:, region].tolist() == expected


def test_the_best_weights_are_those_of_the_epoch_with_the_best_average(tmp_path, monkeypatch):
    builder, found, scores = Kept(), [], iter([0.1, 0.5, 0.9, 0.2, 0.1, None, 0.2])
    monkeypatch.setattr(training_loop, "_dice", lambda _: ([None, None], next(scores)))
    folder = small.train(
        tmp_path / "fold_0",
        {"epochs": 7, "iterations_per_epoch": 1},
        network=builder,
        epoch_finished=lambda _: found.append(copy.deepcopy(builder.built.state_dict())),
    )
    averages = [line["mean_dice_average"] for line in lines_of(folder)]
    assert averages == pytest.approx([0.1, 0.14, 0.216, 0.2144, 0.20296, 0.20296, 0.202664])
    kept = load_file(folder / BEST_WEIGHTS)
    same = [
        all(torch.equal(kept[name], tensor) for name, tensor in state.items()) for state in found
    ]
    assert same == [False, False, True, False, False, False, False]


def test_rates_momentum_and_loss_are_those_of_their_epoch(tmp_path, monkeypatch):
    settings = {
        "epochs": 6,
        "iterations_per_epoch": 2,
        "final_momentum": 0.5,
        "momentum_epochs": 4,
        "schedule": "plateau",
        "plateau_patience": 1,
        "plateau_threshold": 9.0,
    }
    trainer = TrainerV2(**{**small.SETTINGS, **settings})
    loss = DiceCE(transition=(0, 4), final_ce_weight=0.5)
    used = []
    step, forward = torch.optim.SGD.step, training_loop.DeepSupervisionLoss.forward
    weights = []

    def watched(optimizer, *arguments, **more):
        (group,) = optimizer.param_groups
        used.append((group["lr"], group["momentum"]))
        return step(optimizer, *arguments, **more)

    def computed(self, heads, labels):
        weights.append(self.loss.ce_weight)
        return forward(self, heads, labels)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    monkeypatch.setattr(training_loop.DeepSupervisionLoss, "forward", computed)
    lines = lines_of(small.train(tmp_path / "fold_0", settings, loss=loss))
    losses = [line["train_loss"] for line in lines]
    expected = [learning_rate(trainer, epoch, losses[:epoch]) for epoch in range(6)]
    assert len(set(expected)) > 1
    assert [line["learning_rate"] for line in lines] == expected
    assert [rate for rate, _ in used] == pytest.approx(np.repeat(expected, 2))
    falling = [momentum(trainer, epoch) or trainer.momentum for epoch in range(6)]
    assert [value for _, value in used] == pytest.approx(np.repeat(falling, 2))
    shares = np.clip((np.arange(6) - 1) / 4, 0, 1)
    assert weights == pytest.approx(
        np.repeat(1 - 0.5 * shares, 3)
    )  # two training batches and a validation batch


@pytest.mark.parametrize("cascade", [False, True])
def test_batches_are_augmented_on_the_device_as_in_the_workers(tmp_path, cascade):
    settings = {"noise_probability": 1, "rotation_probability": 1}
    batches = []
    for augmentation in (AugmentationV2(**settings), AugmentationV2Torch(**settings)):
        loop = loop_of(tmp_path / "fold_0", cascade=cascade, augmentation=augmentation)
        with contextlib.closing(loop._stream()) as stream:
            batches.append([loop._on_device(next(stream)[1], training=True) for _ in range(3)])
    for (images, label), (expected, expected_label) in zip(*batches, strict=True):
        assert images.shape == expected.shape == (2, 3 if cascade else 1, *small.PATCH)
        torch.testing.assert_close(images[:, :1], expected[:, :1], atol=1e-3, rtol=0)
        assert (images != expected)[:, 1:].float().mean() < 5e-3 or not cascade
        assert (label != expected_label).float().mean() < 5e-3


def test_an_augmentation_that_fails_on_the_device_names_the_cases(tmp_path):
    class Broken(AugmentationV2Torch):
        def augment_tensors(self, *_):
            raise RuntimeError("no such transform")

    with pytest.raises(
        TrainingError,
        match=r"A batch of the cases case_\d, case_\d cannot be augmented.*no such transform",
    ):
        small.train(tmp_path / "fold_0", augmentation=Broken())


def test_the_batch_size_may_be_another_than_that_of_the_plans(tmp_path):
    loop = loop_of(tmp_path / "fold_0", {"batch_size": 5})
    with contextlib.closing(loop._stream()) as stream:
        step, batch = next(stream)
    assert step.training
    assert batch["images"].shape == (5, 1, *small.PATCH)


def test_a_training_without_validation_batches_has_no_dice(tmp_path):
    folder = small.train(tmp_path / "fold_0", {"validation_iterations": 0})
    assert [(line["validation_loss"], line["mean_dice"]) for line in lines_of(folder)] == [
        (None, None)
    ] * 3
    assert (folder / WEIGHTS).is_file()


class Tied(PlainUNet):
    """Two blocks of the finest resolution have one convolution."""

    def build(self, spec):
        network = super().build(spec)
        network.decoder[-1][1].conv = network.encoder[0][1].conv
        return network


def test_weights_under_two_names_are_trained_and_saved(tmp_path):
    names = ("decoder.1.1.conv.weight", "encoder.0.1.conv.weight")
    folder = small.train(tmp_path / "fold_0", network=Tied())
    for file in (WEIGHTS, BEST_WEIGHTS):
        found = load_file(folder / file)
        assert torch.equal(*(found[name] for name in names))
    network = Tied().build(small.CONFIGURATION.network)
    assert not torch.equal(network.state_dict()[names[0]], load_file(folder / WEIGHTS)[names[0]])
    network.load_state_dict(load_file(folder / WEIGHTS))
    assert torch.equal(network.state_dict()[names[0]], load_file(folder / WEIGHTS)[names[0]])


class Watching:
    """A stranger's loss that keeps what it gets."""

    def __init__(self):
        self.seen = []

    def build(self, *, batch_dice, ignore_label=None, regions=False):
        def loss(logits, target):
            self.seen.append((logits.detach(), target))
            return logits.float().square().mean()

        return loss


@pytest.mark.parametrize("ignore", [False, True])
def test_a_loss_for_regions_gets_a_map_of_each_and_one_of_ignored_voxels(tmp_path, ignore):
    loss = Watching()
    declared = {**small.REGIONS, **(small.IGNORE if ignore else {})}
    settings = {"epochs": 1, "iterations_per_epoch": 1}
    small.train(tmp_path / "fold_0", settings, declared=declared, loss=loss)
    training, validation = loss.seen
    for logits, target in (training, validation):
        assert target.dtype == torch.bool
        assert logits.shape == (2, 2, *small.PATCH)
        assert target.shape == (2, 3 if ignore else 2, *small.PATCH)
        whole, core = target[:, 0], target[:, 1]
        assert bool((core & ~whole).any()) is False
        if ignore:
            assert target[:, 2].any()
            assert not (target[:, 2] & whole).any()


def test_a_loss_that_is_not_finite_names_its_cases(tmp_path):
    class Bad(DiceCE):
        def build(self, **_):
            return lambda logits, label: logits.sum() * math.inf

    with pytest.raises(
        TrainingError, match=r"epoch 1 became (nan|-?inf) \(cases case_\d, case_\d\).*learning_rate"
    ):
        small.train(tmp_path / "fold_0", loss=Bad())


def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path):
    """A finite loss may have an infinite gradient in the last batch of an epoch."""
    builder = Kept()
    original = training_loop.Loop._training_step

    def poisoned(loop, step, batch, updating):
        value = original(loop, step, batch, updating)
        if (step.epoch, step.index) == (1, 2):
            builder.built.heads[1].weight.data[0] = math.nan
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop.Loop, "_training_step", poisoned)
        with pytest.raises(
            TrainingError, match="NaN in epoch 2; the last checkpoint, if there is one, is kept"
        ):
            small.train(tmp_path / "fold_0", network=builder)
    content = torch.load(tmp_path / "fold_0" / CHECKPOINT, weights_only=True)
    assert content["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in content["network"].values())
    assert len(lines_of(tmp_path / "fold_0")) == 1
    small.train(tmp_path / "fold_0")  # goes on


def test_too_little_memory_says_what_to_change():
    runtime = resolve(small.make_runtime())
    message = r"cpu has too little memory: 3 GB asked\. .*trainer\.batch_size"
    with pytest.raises(TrainingError, match=message), computing(runtime, deterministic=False):
        raise torch.OutOfMemoryError("3 GB asked.\nmore")


@pytest.mark.parametrize(("found", "expected"), [(False, 0.95), (True, 0.99)])
def test_a_training_that_finds_nothing_starts_over_once(tmp_path, monkeypatch, found, expected):
    monkeypatch.setattr(training_loop, "_HOPELESS_EPOCHS", 2)
    monkeypatch.setattr(training_loop, "_dice", lambda counts: ([0.0, 0.0], 0.1 if found else 0.0))
    step, used = torch.optim.SGD.step, []

    def watched(optimizer, *arguments, **more):
        used.append(optimizer.param_groups[0]["momentum"])
        return step(optimizer, *arguments, **more)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    small.train(tmp_path / "fold_0", {"epochs": 4})
    assert used == [0.99] * 6 + [expected] * 6


def test_a_checkpoint_of_another_version_is_not_called_damaged(tmp_path):
    class InterruptedTrainingError(Exception):
        pass

    def epoch_finished(_):
        raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        small.train(tmp_path / "fold_0", epoch_finished=epoch_finished)
    path = tmp_path / "fold_0" / CHECKPOINT
    torch.save({**torch.load(path, weights_only=True), "format": 1}, path)
    with pytest.raises(TrainingError, match=r"another version.*or delete it"):
        small.train(tmp_path / "fold_0")


def test_what_a_killed_training_left_beside_its_weights_is_removed(tmp_path):
    folder = small.train(tmp_path / "fold_0")
    (folder / CHECKPOINT).write_bytes(b"left")
    before = (folder / WEIGHTS).read_bytes()
    task = small.make_task(folder)
    assert TrainerV2(**small.SETTINGS).train(replace(task)) == {}
    assert not (folder / CHECKPOINT).exists()
    assert (folder / WEIGHTS).read_bytes() == before
