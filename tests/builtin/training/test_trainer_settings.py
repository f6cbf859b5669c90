"""What each setting of the trainer does, and that a resume keeps it: trainings of milliseconds,
compared with plain formulas.
"""

import contextlib
import copy
import itertools
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import small_training as small
import torch
from listening import Listener
from safetensors.torch import load_file

from nnunet_builtin.computing import ranks
from nnunet_builtin.computing.devices import resolve, with_exact_gradients
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.training import loop as training_loop
from nnunet_builtin.training.checkpoint import CHECKPOINT
from nnunet_builtin.training.loading import Iteration
from nnunet_builtin.training.loop import BEST_WEIGHTS, Loop
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.errors import StoppedError, UsageError
from nnunet_core.runtime.workers import usable_cores
from nnunet_core.store.models import WEIGHTS


class Kept(PlainUNet):
    """Keeps the network that it builds."""

    def build(self, spec):
        self.built = super().build(spec)
        return self.built


class InterruptedTrainingError(Exception):
    pass


def weights(folder, name=WEIGHTS):
    return load_file(folder / name)


def lines_of(folder):
    return [json.loads(line) for line in (folder / training_loop.METRICS).read_text().splitlines()]


def assert_close(found, expected, **tolerance):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **tolerance)


def assert_near(found, expected):
    """Compare tensors as wholes: after some steps, rounding moves single weights further than
    that.
    """
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        allowed = 1e-5 * tensor.numel() ** 0.5 + 1e-3 * tensor.norm()
        assert (found[name] - tensor).norm() <= allowed, name


def loop_of(folder, **settings):
    task = small.make_task(folder)
    return Loop(TrainerV2(**{**small.SETTINGS, **settings}), task, resolve(task.runtime)).open()


def steps_of(folder, settings):
    """Train with one iteration per epoch; return the weights after each iteration."""
    builder, found = Kept(), []

    def epoch_finished(_):
        found.append(copy.deepcopy(builder.built.state_dict()))

    settings = {"iterations_per_epoch": 1, "epochs": 6, **settings}
    small.train(folder, settings, network=builder, epoch_finished=epoch_finished)
    return found


def test_weights_are_averaged_as_the_decay_says(tmp_path):
    steps = steps_of(tmp_path / "fold_0", {"ema": 0.7})
    expected = steps[0]
    for state in steps[1:]:
        expected = {name: 0.7 * expected[name] + 0.3 * tensor for name, tensor in state.items()}
    assert_close(weights(tmp_path / "fold_0"), expected)
    difference = (
        (weights(tmp_path / "fold_0")["heads.1.weight"] - steps[-1]["heads.1.weight"]).abs().max()
    )
    assert difference > 1e-4


def test_averaging_does_not_change_the_training_itself(tmp_path):
    plain, averaged = (
        steps_of(tmp_path / name / "fold_0", {"ema": ema})
        for name, ema in (("a", None), ("b", 0.7))
    )
    for one, other in zip(plain, averaged, strict=True):
        assert_close(one, other, rtol=0, atol=0)


def test_the_averaged_weights_are_validated(tmp_path):
    loop = loop_of(tmp_path / "fold_0", ema=0.5)
    _, batch = next(iter(loop._stream()))
    before = loop._validation_step(batch)
    torch.nn.init.normal_(loop.state.network.heads[-1].weight)
    assert loop._validation_step(batch) == before
    torch.nn.init.normal_(loop.state.average.module.heads[-1].weight)
    assert loop._validation_step(batch) != before


@pytest.mark.parametrize("clip", [None, 0.5])
def test_accumulated_batches_are_one_larger_batch(tmp_path, clip):
    """Three iterations of an epoch with accumulation=2: an update from two batches, and one from
    what is left.
    """
    random = np.random.default_rng(0)
    settings = {"accumulation": 2, "gradient_clip": clip}

    def batch(size):
        images = torch.from_numpy(random.normal(size=(size, 1, *small.PATCH)).astype(np.float32))
        label = torch.from_numpy(random.integers(0, 3, (size, 1, *small.PATCH)).astype(np.int16))
        return {"images": images, "label": label, "names": ["drawn"]}

    several = loop_of(tmp_path / "a", **settings)
    one = loop_of(tmp_path / "b", **{**settings, "accumulation": 1})
    for loop in (several, one):  # per sample, or the Dice of a larger batch would be another one
        loop.loss.loss.batch_dice = False
    first, second, third = (batch(2) for _ in range(3))
    for index, (part, updating) in enumerate([(first, False), (second, True), (third, True)]):
        several._training_step(Iteration(0, index, True), part, updating)
    joined = {key: torch.cat([first[key], second[key]]) for key in ("images", "label")}
    one._training_step(Iteration(0, 0, True), {**joined, "names": ["drawn"]}, True)
    one._training_step(Iteration(0, 1, True), third, True)
    assert_close(
        several.state.network.state_dict(), one.state.network.state_dict(), rtol=1e-4, atol=1e-6
    )


def test_accumulation_updates_after_as_many_batches_and_at_the_end_of_an_epoch(
    tmp_path, monkeypatch
):
    updates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda *args, **kw: (updates.append(1), step(*args, **kw))[1]
    )
    small.train(tmp_path / "fold_0", {"accumulation": 2, "iterations_per_epoch": 5, "epochs": 2})
    assert len(updates) == 2 * 3


def test_checkpoints_come_at_their_interval_and_at_the_end(tmp_path, monkeypatch):
    written, write = [], training_loop.write_checkpoint

    def watched(folder, snapshot):
        written.append(snapshot["epoch"])
        write(folder, snapshot)

    monkeypatch.setattr(training_loop, "write_checkpoint", watched)
    small.train(tmp_path / "fold_0", {"epochs": 7, "checkpoint_interval": 3})
    assert written == [3, 6, 7]


def test_a_training_stopped_in_its_first_epoch_draws_no_picture(tmp_path):
    loop = small.make_loop(small.make_task(tmp_path / "fold_0"))
    with pytest.raises(StoppedError, match=r"^Stopped in epoch 1 of 3, after 0 batches"):
        loop._stop(None)
    assert not (tmp_path / "fold_0" / training_loop.PROGRESS).exists()


def test_the_progress_is_drawn_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        training_loop, "progress_picture", lambda metrics, _: drawn.append(len(metrics))
    )
    small.train(tmp_path / "a" / "fold_0", {"epochs": 4})
    monkeypatch.setattr(training_loop, "_PICTURE_SECONDS", 0)
    small.train(tmp_path / "b" / "fold_0", {"epochs": 3})
    assert drawn == [1, 4, 1, 2, 3, 3]


@pytest.mark.parametrize(("share", "expected"), [(0.0, [0, 0]), (0.5, [0, 1]), (1.0, [1, 1])])
def test_the_share_of_a_batch_that_is_centred_on_foreground(tmp_path, share, expected):
    """One foreground voxel in a large case: a patch has it when it is centred on it, else in one of
    seventy.
    """
    task = small.make_task(tmp_path / "fold_0")
    label = np.zeros((40, 40, 40), np.int8)
    label[20, 20, 20] = 1
    for name in small.NAMES:
        small.write_case(task.store, name, label, np.random.default_rng(0))
    loop = Loop(TrainerV2(epochs=5, foreground_share=share), task, resolve(task.runtime)).open()
    with contextlib.closing(loop._stream()) as stream:
        batches = [batch for _, batch in itertools.islice(stream, 40)]
    hits = [[bool((one == 1).any()) for one in batch["label"]] for batch in batches]
    np.testing.assert_allclose(np.mean(hits, axis=0), expected, atol=0.15)


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_asks_pytorch_for_it_while_it_trains(tmp_path, deterministic):
    seen = []

    def epoch_finished(_):
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

    small.train(
        tmp_path / "fold_0",
        {"deterministic": deterministic, "epochs": 1},
        epoch_finished=epoch_finished,
    )
    assert seen == [(deterministic, not deterministic)]
    assert not torch.are_deterministic_algorithms_enabled()


def test_without_deep_supervision_the_coarse_heads_do_not_learn(tmp_path):
    steps = steps_of(tmp_path / "fold_0", {"deep_supervision": False, "weight_decay": 0})
    assert torch.equal(steps[0]["heads.0.weight"], steps[-1]["heads.0.weight"])
    assert not torch.equal(steps[0]["heads.1.weight"], steps[-1]["heads.1.weight"])


RESUMED = [
    {},
    {"ema": 0.7},
    {"accumulation": 2},
    {"optimizer": "Adam"},
    {"optimizer": "AdamW"},
    {"schedule": "cosine", "warmup_epochs": 2},
    {"epochs": 7, "schedule": "plateau", "plateau_patience": 1, "plateau_threshold": 9.0},
    {"final_momentum": 0.5, "momentum_epochs": 3},
    {"checkpoint_interval": 2},
    {"deep_supervision": False},
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return a function that trains with some settings, once; it returns the fold's folder."""
    known = {}

    def train(settings):
        key = json.dumps(settings)
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed") / "fold_0"
            known[key] = small.train(folder, settings)
        return known[key]

    return train


@pytest.mark.parametrize("settings", RESUMED, ids=lambda settings: ",".join(settings) or "default")
@pytest.mark.parametrize("failing", [1, 3])
def test_a_training_that_goes_on_ends_with_the_same_weights(
    tmp_path, undisturbed, settings, failing
):
    settings = {"epochs": 4, **settings}

    def epoch_finished(line):
        if line["epoch"] == failing:
            raise InterruptedTrainingError

    folder = tmp_path / "fold_0"
    with pytest.raises(InterruptedTrainingError):
        small.train(folder, settings, epoch_finished=epoch_finished)
    assert not (folder / WEIGHTS).exists()
    assert (folder / CHECKPOINT).exists() == (failing >= settings.get("checkpoint_interval", 1))
    small.train(folder, settings)
    for name in (WEIGHTS, BEST_WEIGHTS):
        assert_close(weights(folder, name), weights(undisturbed(settings), name), rtol=0, atol=0)


KINDS = {
    "classes": {},
    "ignore": {"declared": {**small.CLASSES, **small.IGNORE}},
    "regions": {"declared": {**small.REGIONS, **small.IGNORE}},
    "cascade": {"cascade": True},
    "cascade-ignore": {"cascade": True, "declared": {**small.CLASSES, **small.IGNORE}},
    "cascade-regions": {"cascade": True, "declared": {**small.REGIONS, **small.IGNORE}},
}


def train_in_processes(number, trainings, fails_after=0, stops_after=0):
    """Train {folder: changes of the task} one after another in the same processes."""
    for folder, changes in trainings.items():  # written here, before there are several writers
        small.prepare(folder, small.labels_of(changes.get("declared", small.CLASSES)))
    arguments = (number, small.free_port(), trainings, fails_after, stops_after)
    small.start_processes(small.train_in_process, arguments, number)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    train_in_processes(
        2, {tmp_path / "both" / kind / "fold_0": changes for kind, changes in KINDS.items()}
    )
    for kind, changes in KINDS.items():
        alone = small.train(tmp_path / "alone" / kind / "fold_0", **changes)
        both = tmp_path / "both" / kind / "fold_0"
        assert_near(weights(both), weights(alone))
        for found, expected in zip(lines_of(both), lines_of(alone), strict=True):
            for name in ("train_loss", "validation_loss", "dice", "mean_dice", "mean_dice_average"):
                assert found[name] == pytest.approx(expected[name], abs=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize("second", [1, 2])
def test_processes_that_are_asked_to_stop_save_what_all_of_them_did(tmp_path, undisturbed, second):
    """One of two processes gets the signal, and both stop within an epoch."""
    folder = tmp_path / "fold_0"
    train_in_processes(2, {folder: {}}, stops_after=2)
    content = torch.load(folder / CHECKPOINT, weights_only=True)
    progress = json.loads(content["progress"])
    assert (content["epoch"], progress["position"], len(progress["training_losses"])) == (2, 2, 2)
    train_in_processes(second, {folder: {}})
    alone = undisturbed({})
    assert_near(weights(folder), weights(alone))
    for found, expected in zip(lines_of(folder), lines_of(alone), strict=True):
        assert found["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-3)
        assert found["dice"] == pytest.approx(expected["dice"], abs=1e-3)


@pytest.mark.parametrize(
    ("batch", "size", "parts"),
    [(2, 2, [[0], [1]]), (5, 2, [[0, 1], [2, 3, 4]]), (7, 3, [[0, 1], [2, 3], [4, 5, 6]])],
)
def test_processes_share_a_batch(monkeypatch, batch, size, parts):
    monkeypatch.setattr(ranks, "world_size", lambda: size)
    for number, part in enumerate(parts):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        assert list(ranks.own_part(batch)) == part
    with pytest.raises(UsageError, match=rf"--set trainer\.batch_size={size * (size - 1)}"):
        ranks.own_part(size - 1)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_a_training_goes_on_with_another_number_of_processes(tmp_path, undisturbed, first, second):
    folder = tmp_path / "fold_0"
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="as planned"):
        train_in_processes(first, {folder: {}}, fails_after=2)
    assert torch.load(folder / CHECKPOINT, weights_only=True)["epoch"] == 2
    train_in_processes(second, {folder: {}})
    assert_near(weights(folder), weights(undisturbed({})))
    assert (folder / training_loop.METRICS).read_text().count("\n") == small.SETTINGS["epochs"]


def test_the_plateau_of_the_resumed_training_lowers_the_rate(tmp_path):
    settings = {"epochs": 7, "schedule": "plateau", "plateau_patience": 1, "plateau_threshold": 9.0}
    lines = (
        (small.train(tmp_path / "fold_0", settings) / training_loop.METRICS)
        .read_text()
        .splitlines()
    )
    assert len({json.loads(line)["learning_rate"] for line in lines}) > 1


def test_batch_norm_goes_on_with_its_statistics(tmp_path):
    builder, settings = PlainUNet(norm="batch"), {"ema": 0.5}
    undisturbed = small.train(tmp_path / "a" / "fold_0", settings, network=builder)

    def epoch_finished(line):
        if line["epoch"] == 2:
            raise InterruptedTrainingError

    folder = tmp_path / "b" / "fold_0"
    with pytest.raises(InterruptedTrainingError):
        small.train(folder, settings, network=builder, epoch_finished=epoch_finished)
    small.train(folder, settings, network=builder)
    assert_close(weights(folder), weights(undisturbed), rtol=0, atol=0)
    assert weights(folder)["encoder.0.0.norm.num_batches_tracked"] == 9
    assert weights(folder)["encoder.0.0.norm.running_mean"].any()


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_frozen_encoder_stays_as_it_was(tmp_path, norm):
    builder = PlainUNet(norm=norm)
    source = small.train(tmp_path / "a" / "fold_0", network=builder)
    initial = small.frozen_encoder(source)
    tuned = weights(small.train(tmp_path / "b" / "fold_0", network=builder, initial=initial))
    changed = {
        name.split(".")[0]
        for name, tensor in weights(source).items()
        if not torch.equal(tensor, tuned[name])
    }
    assert changed == {"decoder", "heads", "upsampling"}


def test_initialising_anew_forgets_every_convolution(tmp_path):
    task = small.make_task(tmp_path / "fold_0", network=PlainUNet(norm="batch", head_bias=True))
    loop = Loop(TrainerV2(), task, resolve(task.runtime)).open()
    network = loop.state.network
    for tensor in network.state_dict().values():
        tensor.fill_(7)
    training_loop._start_over(task, loop.state)
    kept = {name for name, tensor in network.state_dict().items() if (tensor == 7).all()}
    assert kept == {name for name in network.state_dict() if ".norm." in name}
    assert not network.heads[1].bias.any()
    assert loop.state.optimizer.param_groups[0]["momentum"] == 0.95


def test_compiling_leaves_the_statistics_of_batch_norm_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    task = small.make_task(tmp_path / "fold_0", network=PlainUNet(norm="batch"))
    loop = Loop(TrainerV2(compile=True), task, resolve(task.runtime)).open()
    assert all(
        (buffer == (1 if "var" in name else 0)).all()
        for name, buffer in loop.state.network.named_buffers()
    )


def test_networks_that_bfloat16_computes_wrongly_train_in_float32(tmp_path):
    listener = Listener()
    task = small.make_task(tmp_path / "fold_0", report=listener)
    used = TrainerV2(**small.SETTINGS).train(
        replace(task, runtime=replace(task.runtime, precision="bfloat16"))
    )
    assert used["device"] == "cpu"
    assert used["threads"] == os.environ.get("OMP_NUM_THREADS", str(usable_cores()))
    assert used["precision"] == "float32"  # its coarsest resolution has 2 voxels along each axis
    assert any("float32" in text for text in listener.messages)


@pytest.mark.parametrize(
    ("patch", "expected"), [((16, 16, 16), torch.bfloat16), ((8, 16, 16), torch.float32)]
)
def test_bfloat16_is_left_where_a_resolution_has_two_voxels(patch, expected):
    runtime = replace(resolve(small.make_runtime()), dtype=torch.bfloat16)
    assert with_exact_gradients(runtime, small.CONFIGURATION.network, patch).dtype == expected
