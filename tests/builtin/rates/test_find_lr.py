"""The range test of the learning rate: what it measures and says, and that nothing of it stays."""

import csv
import json
import math
import os
import signal

import commands
import numpy as np
import pytest
import small_training as small
from tiny_dataset import make_tiny

from nnunet_builtin.rates.picture import draw
from nnunet_builtin.rates.sweep import rising, swept
from nnunet_builtin.training.trainer import TrainerV2

RATES = rising(1e-6, 10, 1000)


def measured(losses, rates=RATES):
    """Return the sweep of losses, and how many of them were asked for."""
    asked = []

    def generate():
        for loss in losses:
            asked.append(loss)
            yield float(loss)

    return swept(generate(), rates, lambda *_: None), len(asked)


def falling(noise=0.02):
    """Losses that fall around a rate of 1e-3, and explode from 1 on."""
    x = np.log10(RATES)
    random = np.random.default_rng(0)
    plain = 0.5 - 1 / (1 + np.exp(-4 * (x + 3))) + np.where(x > 0, 100 * x, 0)
    return plain + random.normal(0, noise, len(x))


def test_rates_rise_by_the_same_factor_as_in_v1():
    assert RATES[0] == pytest.approx(1e-6)
    assert RATES[-1] == pytest.approx(10)
    factors = np.array(RATES[1:]) / np.array(RATES[:-1])
    np.testing.assert_allclose(factors, factors[0])


def test_the_smoothed_loss_is_that_of_v1():
    """A moving average that keeps 98 % of itself, without its bias to 0 (of 1000 batches)."""
    losses = falling()
    sweep, _ = measured(losses)
    average = 0.0
    for index in range(30):
        average = 0.98 * average + 0.02 * losses[index]
        assert sweep.smoothed[index] == pytest.approx(average / (1 - 0.98 ** (index + 1)))


def test_the_steepest_fall_and_the_divergence_are_found():
    sweep, asked = measured(falling())
    rate, slope = sweep.steepest(len(RATES))
    assert 5e-4 < rate < 2e-3
    assert slope == pytest.approx(-1, abs=0.15)
    assert sweep.diverged
    assert 1 < sweep.rates[-1] < 2
    assert asked == len(sweep.rates) + 1  # nobody asks for the losses after that
    rate, loss = sweep.lowest
    assert 1e-2 < rate < 2
    assert loss < -0.4


def test_noise_alone_has_no_steepest_fall():
    sweep, asked = measured(np.random.default_rng(1).normal(1, 0.1, 100), RATES[:100])
    assert sweep.steepest(100) is None
    assert not sweep.diverged
    assert asked == 100


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it(wrong):
    sweep, asked = measured([1.0, 0.9, wrong, 0.8], RATES[:4])
    assert (sweep.losses, sweep.diverged, asked) == ((1.0, 0.9), True, 3)


def test_the_picture_shows_a_short_sweep_without_a_steepest_fall(tmp_path):
    sweep, _ = measured([1.0], RATES[:1])
    draw(sweep, None, None, "title", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


class Recording(TrainerV2):
    """Remembers the rate of each step."""

    def training_step(self, training, images, label):
        self.seen.append([group["lr"] for group in training.optimizer.param_groups])
        return super().training_step(training, images, label)


def test_each_batch_is_learnt_from_with_its_rate_and_differs_from_the_next(tmp_path):
    trainer = Recording(**small.SETTINGS)
    trainer.seen = []
    task = small.make_task(tmp_path / "fold_0")
    rates = rising(1e-6, 1e-1, 6)
    losses = list(trainer.try_rates(task, rates))
    assert trainer.seen == [[pytest.approx(rate)] for rate in rates]
    assert len(set(losses)) == 6
    assert trainer.iterations_per_epoch == small.SETTINGS["iterations_per_epoch"]
    assert list(task.folder.glob("*.safetensors")) == []


def test_a_loss_that_explodes_is_yielded_instead_of_an_error(tmp_path):
    class Exploding(TrainerV2):
        def training_loss(self, training, images, label):
            return super().training_loss(training, images, label) * math.inf

    losses = Exploding(**small.SETTINGS).try_rates(small.make_task(tmp_path / "fold_0"), (1, 2))
    assert not math.isfinite(next(losses))
    losses.close()


def everything(folder):
    """Return {file: its bytes} of a folder, logs apart."""
    paths = [p for p in folder.rglob("*") if p.is_file() and "logs" not in p.parts]
    return {path: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a workspace whose small dataset has a trained fold 0, and the options of that."""
    space = tmp_path_factory.mktemp("rates")
    make_tiny(space / "raw" / "Dataset001_Tiny")
    settings = ("planner.base_features=4", "planner.max_batch_size=2", "trainer.epochs=1")
    settings += ("trainer.iterations_per_epoch=1", "trainer.validation_iterations=0")
    options = [1, "--workspace", space, "--device", "cpu", "--workers", "0", "--processes", "1"]
    options += [word for setting in settings for word in ("--set", setting)]
    done = commands.nnunet("train", *options)
    assert done.returncode == 0, done.stderr
    return space, options


def test_the_command_writes_table_picture_and_facts_and_touches_no_training(trained, tmp_path):
    space, options = trained
    before, output = everything(space / "results"), tmp_path / "range"
    words = ("find-lr", *options, "--iterations", "20", "--highest", "1", "--output", output)
    done = commands.nnunet(*words)
    assert done.returncode == 0, done.stderr
    assert everything(space / "results") == before
    assert sorted(path.name for path in output.iterdir()) == [
        *("find_lr.csv", "find_lr.json", "find_lr.png")
    ]
    rows = list(csv.DictReader((output / "find_lr.csv").open()))
    facts = json.loads((output / "find_lr.json").read_text())
    assert float(rows[0]["learning_rate"]) == facts["lowest_rate"] == pytest.approx(1e-6)
    assert len(rows) == facts["batches"] <= 20
    assert "not the best rate of a whole training" in done.stdout
    again = commands.nnunet(*words)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lowest", "1", "--highest", "0.1"), "rates rise"),
        (("--fold", "0,1"), "of one fold"),
        (("-c", "2d", "-c", "3d_fullres"), "of one configuration"),
        (("--trainer", "test_find_lr:Plain"), "TriesRates"),
    ],
)
def test_what_cannot_be_tried_is_refused(trained, words, message, tmp_path):
    _, options = trained
    if "--trainer" in words:
        options = [word for word in options if not str(word).startswith("trainer.")]
        options = options[: options.index("--set")]
    done = commands.nnunet("find-lr", *options, *words, "--output", tmp_path / "range")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "range").exists()


class StoppedByUser(TrainerV2):
    """Somebody presses Ctrl-C in the third batch."""

    def updated(self, training):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_nothing_and_says_so(trained, tmp_path):
    space, options = trained
    before = everything(space / "results")
    stopped = ("--trainer", "test_find_lr:StoppedByUser", "--output", tmp_path / "range")
    done = commands.nnunet("find-lr", *options, *stopped, "--iterations", "20")
    assert done.returncode == 130
    assert "stopped: Nothing was written." in done.stderr
    assert everything(space / "results") == before
    assert not (tmp_path / "range").exists()


class Plain:
    """A trainer of nobody."""

    def train(self, task):
        raise NotImplementedError
