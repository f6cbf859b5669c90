"""Training through the command line: stops, resumes, cascades, several processes, fine-tuning; and
what settings do.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from commands import nnunet
from safetensors.torch import load_file
from tiny_dataset import make_tiny

from nnunet_builtin.networks.state_names import to_v1, to_v2
from nnunet_builtin.training.checkpoint import (
    CHECKPOINT,
    Progress,
    State,
    read_checkpoint,
    write_checkpoint,
)
from nnunet_builtin.training.loop import _dice
from nnunet_builtin.training.optimization import learning_rate, make_optimizer, momentum
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import UsageError
from nnunet_core.runtime.files import file_digest

SMALL = ("--set", "planner.max_batch_size=2", "--set", "planner.base_features=4")
SHORT = ("epochs=2", "iterations_per_epoch=4", "validation_iterations=1")


def command(dataset, step="train", *options, settings=SHORT, folds="0"):
    workspace = str(dataset.parents[1])
    arguments = [
        sys.executable,
        "-m",
        "nnunet_cli",
        step,
        str(dataset),
        "--workspace",
        workspace,
        "--folds",
        folds,
    ]
    arguments += [*SMALL, "--workers", "0", "--precision", "float32", *options]
    for setting in settings:
        arguments += ["--set", f"trainer.{setting}"]
    return arguments


def train(dataset, *options, **more):
    done = nnunet(*command(dataset, "train", *options, **more)[3:])
    assert done.returncode == 0, done.stderr
    return done.stderr


def folds(dataset, name="fold_0"):
    return sorted(dataset.parents[1].glob(f"results/*/*/*/{name}"))


def weights(fold):
    return load_file(fold / "weights.safetensors")


def lines(fold):
    return [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, {0: 0.01, 5: 0.01 * 0.5**0.9}),
        ({"schedule": "cosine"}, {0: 0.01, 5: 0.005}),
        ({"schedule": "constant"}, {0: 0.01, 9: 0.01}),
        ({"schedule": "constant", "step_epochs": (3, 6)}, {2: 0.01, 3: 0.001, 6: 0.0001}),
        ({"epochs": 12, "warmup_epochs": 2}, {0: 0.005, 1: 0.01, 2: 0.01, 7: 0.01 * 0.5**0.9}),
        (
            {"step_epochs": (4,), "decay_start": 6},
            {3: 0.01, 4: 0.001, 6: 0.001, 8: 0.001 * 0.5**0.9},
        ),
        (
            {"epochs": 14, "cycle_epochs": 4},
            {5: 0.01 * 0.5**0.9, 10: 1e-6, 11: 0.0005005, 12: 0.001, 13: 0.0005005},
        ),
    ],
)
def test_learning_rates(schedule, expected):
    settings = TrainerV2(**{"epochs": 10, **schedule})
    for epoch, rate in expected.items():
        assert learning_rate(settings, epoch) == pytest.approx(rate)


def test_the_rate_falls_on_a_plateau_as_with_pytorchs_schedule():
    settings = TrainerV2(
        schedule="plateau", step_factor=0.2, plateau_patience=3, plateau_threshold=0.01
    )
    random = np.random.default_rng(0)
    losses = (1 / np.arange(1, 120) ** 0.7 + random.normal(0, 0.02, 119)).tolist()
    optimizer = make_optimizer(settings, [torch.nn.Parameter(torch.ones(1))])
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.2, patience=3, threshold=0.01, threshold_mode="abs", eps=0
    )
    average, rates = losses[0], []
    for epoch in range(1, len(losses)):
        average = 0.93 * average + 0.07 * losses[epoch]
        scheduler.step(average)
        assert learning_rate(settings, epoch + 1, losses[: epoch + 1]) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )
        rates.append(optimizer.param_groups[0]["lr"])
    assert len(set(rates)) > 2


def test_momentum_falls_at_the_end():
    settings = TrainerV2(final_momentum=0.9)
    assert [momentum(settings, epoch) for epoch in (0, 800, 801)] == [None, None, None]
    assert momentum(settings, 901) == pytest.approx(0.945)
    assert momentum(settings, 999) == pytest.approx(0.99 - 0.09 / 200 * 198)
    assert momentum(TrainerV2(), 999) is None


@pytest.mark.parametrize("name", ["SGD", "Adam", "AMSGrad", "AdamW", "torch.optim:RAdam"])
def test_optimisers_train_what_is_not_frozen(name):
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    layers[0].requires_grad_(False)
    before = [parameter.detach().clone() for parameter in layers.parameters()]
    optimizer = make_optimizer(TrainerV2(optimizer=name, learning_rate=0.1), layers.parameters())
    layers(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    changed = [
        not torch.equal(old, new) for old, new in zip(before, layers.parameters(), strict=True)
    ]
    assert changed == [False, False, True, True]
    assert optimizer.defaults.get("amsgrad", False) == (name == "AMSGrad")


@contextlib.contextmanager
def killed_after(seconds, process):
    """Kill a process that takes longer than the block may, which ends what waits for its output."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    yield
    timer.cancel()


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A dataset like `tiny`, and a training of fold 0 beside it."""
    dataset = make_tiny(tmp_path_factory.mktemp("trained") / "ws" / "raw" / "Dataset001_Tiny")
    train(dataset)
    return dataset


@pytest.fixture
def trained(trained_once, tmp_path):
    """A copy of the trained dataset and its workspace, to go on from."""
    shutil.copytree(trained_once.parents[1], tmp_path / "ws")
    return tmp_path / "ws" / "raw" / trained_once.name


LONG = ("epochs=2", "iterations_per_epoch=60", "validation_iterations=1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights of a long training that nobody stopped."""
    dataset = make_tiny(tmp_path_factory.mktemp("undisturbed") / "raw" / "Dataset001_Tiny")
    train(dataset, settings=LONG)
    return weights(*folds(dataset))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_how_to_go_on_and_ends_with_the_same_weights(
    tiny, number, undisturbed
):
    process = subprocess.Popen(command(tiny, settings=LONG), stderr=subprocess.PIPE, text=True)
    with killed_after(100, process):
        before = list(
            itertools.takewhile(lambda line: not line.startswith("train fold_0"), process.stderr)
        )
    time.sleep(0.5)
    process.send_signal(number)
    with killed_after(100, process):
        err = process.stderr.read()
    assert process.wait(timeout=100) == 128 + number, [*before, err]
    assert "Run the same command again to go on" in err
    (fold,) = folds(tiny)
    content = torch.load(fold / "checkpoint.pt", weights_only=True)
    done = content["epoch"] * 61 + json.loads(content["progress"])["position"]
    assert 0 < done < 122
    assert "going on after epoch" in train(tiny, settings=LONG)
    stopped = weights(fold)
    assert all(torch.equal(stopped[name], undisturbed[name]) for name in stopped)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batches(trained):
    (fold,) = folds(trained)
    alone, curve = weights(fold), lines(fold)
    fold.rename(fold.with_name("alone"))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    both = command(trained, "train", "--device", "cpu")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [both[0], *launcher, *both[2:]],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    together = weights(fold)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-4, rtol=1e-3)
    for mine, theirs in zip(curve, lines(fold), strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)
        assert mine["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=1e-4)
    assert len(list((fold / "validation").glob("case_*.nii.gz"))) == 2


@pytest.mark.slow
def test_a_cascade_trains_the_stage_before_it_and_predicts_through_it(tiny, tmp_path):
    assert not nnunet("plan", tiny, "--workspace", tiny.parents[1], *SMALL).returncode
    (path,) = tiny.parents[1].glob("preprocessed/*/plans/*.json")
    plans = json.loads(path.read_text())
    full = plans["configurations"]["3d_fullres"]
    low = {**full, "spacing": [2 * value for value in full["spacing"]], "batch_dice": False}
    low["median_shape"] = [8, 10, 9]
    network = {**full["network"], "input_channels": full["network"]["input_channels"] + 1}
    plans["configurations"]["3d_lowres"] = low
    plans["configurations"]["3d_cascade_fullres"] = {
        **full,
        "previous": "3d_lowres",
        "network": network,
    }
    path.write_text(json.dumps(plans))

    options = ("-c", "3d_cascade_fullres")
    failed = nnunet(*command(tiny, "train", *options)[3:])
    assert failed.returncode == 2
    assert re.search(
        r"nnunet train Dataset001_Tiny .* -c 3d_lowres --folds 0,1,2,3,4", failed.stderr
    )

    settings = ("epochs=1", "iterations_per_epoch=2", "validation_iterations=1")
    predict = ["--predict", str(tiny / "imagesTr"), "--output", str(tmp_path / "out")]
    done = nnunet(*command(tiny, "run", *options, *predict, settings=settings)[3:])
    assert done.returncode == 0, done.stderr
    (model,) = tiny.parents[1].glob("results/*/*/3d_cascade_fullres")
    assert len(list(model.glob("previous_stage/case_*.json"))) == 6
    assert len(list(model.parent.glob("3d_lowres/fold_*"))) == 5
    assert weights(model / "fold_0")["encoder.0.0.conv.weight"].shape[1] == 2
    assert len(list((tmp_path / "out").glob("case_*.nii.gz"))) == 6

    both = ("-c", "3d_lowres", "-c", "3d_cascade_fullres")
    inputs = {path: path.stat().st_mtime_ns for path in model.glob("previous_stage/*")}
    train(
        tiny, *both, settings=settings, folds="all"
    )  # the cascade of all cases has inputs of its own
    assert (model / "fold_all" / "weights.safetensors").is_file()
    assert len(list(model.glob("previous_stage_all/case_*.json"))) == 6
    assert {path: path.stat().st_mtime_ns for path in model.glob("previous_stage/*")} == inputs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping": 3, "validation_iterations": 0}, "validation_iterations"),
        ({"optimizer": "sgd"}, "Allowed: SGD, Adam, AMSGrad, AdamW, or package.module:Class"),
        ({"optimizer": "torch.optim:Ranger"}, "no attribute 'Ranger'"),
        ({"optimizer": "torch.nn:Linear"}, "not a torch.optim.Optimizer"),
        ({"cycle_epochs": 60, "warmup_epochs": 50, "epochs": 100}, "cycle_epochs"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        TrainerV2(**settings).check(Runtime())


def test_settings_that_an_optimiser_does_not_take_are_named():
    settings = TrainerV2(optimizer="AdamW", optimizer_settings={"betas": [0.8, 0.9], "warp": 9})
    with pytest.raises(UsageError, match="warp"):
        make_optimizer(settings, [torch.nn.Parameter(torch.ones(1))])
    settings.optimizer_settings.pop("warp")
    assert make_optimizer(settings, [torch.nn.Parameter(torch.ones(1))]).defaults["betas"] == (
        0.8,
        0.9,
    )


def test_a_training_goes_on_in_another_precision(tmp_path):
    def state(scaled):
        network = torch.nn.Linear(2, 1)
        optimizer = make_optimizer(TrainerV2(), network.parameters())
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        return State(network, optimizer, scaler, Progress(np.zeros((3, 1))))

    for before, after in ((False, True), (True, False), (True, True)):
        first, second = state(before), state(after)
        write_checkpoint(tmp_path, first.snapshot())
        second.restore(read_checkpoint(tmp_path / CHECKPOINT), tmp_path / CHECKPOINT)
        assert torch.equal(second.network.weight, first.network.weight)
        assert second.scaler.is_enabled() == after


def test_without_any_class_there_is_no_dice():
    assert _dice(np.zeros((3, 2))) == ([None, None], None)
    assert _dice(np.array([[0.0, 0], [4, 0], [0, 0]])) == ([0.0, None], 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "key", "translate"),
    [
        ("weights.safetensors", None, None),
        ("model_final_checkpoint.model", "state_dict", to_v1),
        ("checkpoint_final.pth", "network_weights", to_v2),
    ],
    ids=["own", "v1", "v2"],
)
def test_fine_tuning_reports_what_fits_and_frozen_parts_stay(
    trained, tmp_path, file, key, translate
):
    (source,) = folds(trained)
    model = source.parent
    if translate is not None:
        model = tmp_path / "foreign"
        (model / source.name).mkdir(parents=True)
        torch.save({key: translate(weights(source))}, model / source.name / file)
    digest = file_digest(model / source.name / file)
    err = train(trained, "--pretrained", str(model), "--freeze", "encoder")
    total = len(weights(source))
    assert f"{total} of {total} tensors loaded" in err
    assert "frozen: what was loaded of the encoder" in err
    tuned = next(fold for fold in folds(trained) if fold != source)
    before, after = weights(source), weights(tuned)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "heads", "upsampling"}
    record = json.loads((tuned / "run.json").read_text())
    assert record["initial"]["digest"] == digest
    assert record["initial"]["frozen"] == ["encoder"]
    moved = model.rename(model.with_name("moved"))  # the content decides which training it is
    again = train(trained, "--pretrained", str(moved), "--freeze", "encoder")
    assert "trained and validated already" in again


@pytest.mark.slow
def test_early_stopping_ends_the_training(tiny):
    settings = (
        "epochs=50",
        "iterations_per_epoch=1",
        "validation_iterations=1",
        "early_stopping=2",
        "learning_rate=1e-9",
    )
    assert "no better Dice in 2 epochs" in train(tiny, settings=settings)
    (fold,) = folds(tiny)
    averages = [line["mean_dice_average"] for line in lines(fold)]
    assert len(averages) == averages.index(max(averages)) + 1 + 2


@pytest.mark.slow
def test_restart_keeps_what_was_trained(trained):
    err = train(trained)
    assert "trained and validated already" in err
    assert "other code" not in err
    path = folds(trained)[0] / "run.json"
    record = json.loads(path.read_text())
    assert int(record["threads"]) >= 1
    record["components"]["loss"] |= {"code_digest": "0" * 16, "version": "0.0.1"}
    path.write_text(json.dumps(record))
    err = train(trained)
    assert "trained and validated already" in err
    assert re.search(r"other code: .*loss 'builtin/dice_ce' 0\.0\.1 -> .*--restart", err)
    assert "as asked" in train(trained, "--restart")
    assert len(folds(trained)) == len(folds(trained, "stale_fold_0_1")) == 1
