"""A training that was stopped on a card ends as one that was not."""

import pytest
import small_training as small
import torch
from safetensors.torch import load_file
from small_on_card import lines_of, relative_error, runtime_on

from nnunet_builtin.augmentation.v2 import AugmentationV2Torch
from nnunet_builtin.training.checkpoint import CHECKPOINT
from nnunet_core.store.models import WEIGHTS

pytestmark = pytest.mark.gpu

SETTINGS = {"epochs": 3, "iterations_per_epoch": 4, "deterministic": True, "ema": 0.9}


class InterruptedTrainingError(Exception):
    pass


def interrupt(line):
    if line["epoch"] == 2:
        raise InterruptedTrainingError


def train(folder, device, precision, **changes):
    runtime, augmentation = runtime_on(device, precision), AugmentationV2Torch()
    return small.train(folder, SETTINGS, runtime=runtime, augmentation=augmentation, **changes)


def weights(folder):
    return load_file(folder / WEIGHTS)


def losses(folder):
    return [line["train_loss"] for line in lines_of(folder)]


def are_equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_stopped_training_ends_as_an_undisturbed_one(tmp_path, device, precision):
    undisturbed = train(tmp_path / "fold_0", device, precision)
    again = train(tmp_path / "fold_1", device, precision)
    with pytest.raises(InterruptedTrainingError):
        train(tmp_path / "fold_2", device, precision, epoch_finished=interrupt)
    stopped = tmp_path / "fold_2"
    assert torch.load(stopped / CHECKPOINT, weights_only=True)["epoch"] == 2
    assert not (stopped / WEIGHTS).exists()
    train(stopped, device, precision)

    expected, found = weights(undisturbed), weights(stopped)
    if are_equal(expected, weights(again)):
        assert are_equal(found, expected)
    else:  # no deterministic kernels here: then rounding differs, and grows in twelve steps
        close = 1e-3 if precision == "float32" else 0.05
        assert all(relative_error(found[name], expected[name]) < close for name in expected)
    assert losses(stopped) == pytest.approx(losses(undisturbed), abs=1e-3)
