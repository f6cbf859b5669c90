"""What networks may return: one tensor or several, switched off or not; and what is said when they
return something else.
"""

import itertools
import json

import numpy as np
import pytest
import small_training as small
import torch
from safetensors.torch import load_file
from torch import nn

from nnunet_builtin.inference.sliding_window import SlidingWindow
from nnunet_builtin.training import loop
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.errors import TrainingError
from nnunet_core.store.models import WEIGHTS


class Returning(nn.Module):
    """A network that returns what `arrange` makes of its logits."""

    def __init__(self, spec, arrange, outputs=0):
        super().__init__()
        self.full = nn.Conv3d(spec.input_channels, spec.output_channels + outputs, 3, padding=1)
        self.coarse = nn.Conv3d(spec.input_channels, spec.output_channels, 4, 4)
        self.arrange = arrange

    def forward(self, images):
        return self.arrange(self, self.full(images), self.coarse(images))


class Builder:
    def __init__(self, arrange, **changes):
        self.arrange, self.changes = arrange, changes

    def build(self, spec):
        return Returning(spec, self.arrange, **self.changes)

    def memory(self, spec, patch_size):
        return 1.0


class Switched(Builder):
    """Builds networks with the attribute."""

    def __init__(self, built=True):
        super().__init__(lambda net, *heads: heads if net.deep_supervision else heads[0])
        self.built, self.networks = built, []

    def build(self, spec):
        network = super().build(spec)
        network.deep_supervision = self.built
        self.networks.append(network)
        return network


def full_alone(net, full, coarse):
    return full


def in_training(net, full, coarse):
    return [full, coarse] if net.training else full


def twice(net, full, coarse):
    return full, 2 * full, coarse


def lines_of(folder):
    return [json.loads(line) for line in (folder / loop.METRICS).read_text().splitlines()]


def weights(folder):
    return load_file(folder / WEIGHTS)


@pytest.mark.parametrize("deep_supervision", [True, False])
@pytest.mark.parametrize("arrange", [full_alone, in_training, twice])
def test_it_trains_and_predicts(tmp_path, arrange, deep_supervision):
    folder = tmp_path / "fold_0"
    settings = {"deep_supervision": deep_supervision, "ema": 0.5}
    small.train(folder, settings, network=Builder(arrange))
    assert lines_of(folder)[-1]["train_loss"] < lines_of(folder)[0]["train_loss"]
    task = small.make_task(folder)
    what = (task.configuration, task.labels, Builder(arrange), task.runtime)
    model = TrainedModel((folder,), *what, mirror_axes=(0, 1, 2))
    probabilities = SlidingWindow().load(model)(np.zeros((1, *small.SHAPE), np.float32)).whole()
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_without_deep_supervision_only_the_first_head_is_trained(tmp_path):
    settings = {"deep_supervision": False}
    alone = small.train(tmp_path / "a" / "fold_0", settings, network=Builder(full_alone))
    several = small.train(tmp_path / "b" / "fold_0", settings, network=Builder(twice))
    for name, tensor in weights(alone).items():
        assert torch.equal(weights(several)[name], tensor), name


@pytest.mark.parametrize(
    ("built", "wanted", "expected"),
    [
        (built, wanted, built and wanted)
        for built, wanted in itertools.product([True, False], repeat=2)
    ],
)
def test_deep_supervision_is_switched_off_and_never_on(tmp_path, built, wanted, expected):
    builder = Switched(built)
    small.train(tmp_path / "fold_0", {"deep_supervision": wanted}, network=builder)
    assert [network.deep_supervision for network in builder.networks] == [expected]


def test_a_foreign_module_gets_no_attribute(tmp_path):
    built = []

    class Kept(Builder):
        def build(self, spec):
            built.append(super().build(spec))
            return built[-1]

    small.train(tmp_path / "fold_0", network=Kept(full_alone))
    assert not hasattr(built[0], "deep_supervision")


def broken(net, full, coarse):
    return full + torch.randn(3)


REFUSED = {
    "a dictionary": (lambda n, f, c: {"out": f}, "an object of the class dict"),
    "an empty list": (lambda n, f, c: [], "a list of nothing"),
    "no tensor in it": (lambda n, f, c: [f, None], "a list of Tensor, NoneType"),
    "the coarse one first": (lambda n, f, c: [c, f], r"Head 0.*all 8 x 8 x 8 voxels"),
    "heads in one tensor": (
        lambda n, f, c: torch.stack([f, f], 1),
        r"Head 0.*\(2, 2, 3, 8, 8, 8\)",
    ),
    "other channels": (lambda n, f, c: [f, c[:, :2]], r"Head 1.*\(2, 2, 2, 2, 2\).*3 outputs"),
    "an odd size": (lambda n, f, c: [f, f[..., :3]], r"8 x 8 x 3 voxels for labels of 8 x 8 x 8"),
    "NaN": (lambda n, f, c: [f, c * torch.nan], "Head 1 .* infinite or NaN"),
    "an error": (
        broken,
        r"Returning cannot be applied to a batch of shape \(2, 1, 8, 8, 8\).*size",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_logits_is_said_before_the_training(tmp_path, name):
    arrange, message = REFUSED[name]
    folder = tmp_path / "fold_0"
    with pytest.raises(TrainingError, match=message):
        small.train(folder, network=Builder(arrange))
    assert list(folder.iterdir()) == []


def test_another_number_of_outputs_is_said_before_the_training(tmp_path):
    with pytest.raises(TrainingError, match=r"\(2, 5, 8, 8, 8\).*\(2, 3, \*voxels\), 3 outputs"):
        small.train(tmp_path / "fold_0", network=Builder(full_alone, outputs=2))


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    kinds = {arrange.__name__: Builder(arrange) for arrange in (full_alone, in_training, twice)}
    folders = {kind: tmp_path / "both" / kind / "fold_0" for kind in kinds}
    for folder in folders.values():  # written here, before there are several writers
        small.prepare(folder, small.labels_of(small.CLASSES))
    trainings = {folders[kind]: {"network": builder} for kind, builder in kinds.items()}
    arguments = (2, small.free_port(), trainings, 0, 0)
    small.start_processes(small.train_in_process, arguments, 2)
    for kind, builder in kinds.items():
        alone = small.train(tmp_path / "alone" / kind / "fold_0", network=builder)
        for name, tensor in weights(alone).items():
            torch.testing.assert_close(weights(folders[kind])[name], tensor, rtol=1e-3, atol=1e-4)
