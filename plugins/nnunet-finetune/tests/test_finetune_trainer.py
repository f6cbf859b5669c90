"""Fine-tuning: what is taken over, what learns first, how the rate goes, stops that go on."""

import json

import pytest
import torch
from safetensors.torch import load_file
from toy_task import BRIEF, make_task

from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import UsageError
from nnunet_finetune.channels import match_channels, match_inputs
from nnunet_finetune.trainer import Finetune

STEM = "encoder.0.0.conv.weight"
RUNTIME = Runtime("cpu", "float32", 0, 1)


class Watched(Finetune):
    """Remembers the weights after each update, and what the training started from."""

    def modules(self, network):
        self.start = {name: t.clone() for name, t in network.state_dict().items()}
        self.after = []
        return super().modules(network)

    def updated(self, training):
        state = training.network.state_dict()
        self.after.append((training.epoch, {name: t.clone() for name, t in state.items()}))


def watched(task, **settings):
    """Train; return the trainer that has watched."""
    trainer = Watched(**{**BRIEF, "first_epochs": 2, "warmup_epochs": 1, **settings})
    trainer.train(task)
    return trainer


def test_all_but_the_heads_is_taken_over_and_the_heads_learn_alone(toy_datasets, tmp_path, source):
    trainer, found = watched(make_task(toy_datasets, tmp_path, path=source)), load_file(source)
    heads = {name for name in found if name.startswith("heads.")}
    for name, tensor in trainer.start.items():
        assert torch.equal(tensor, found[name]) == (name not in heads), name
    assert [epoch for epoch, _ in trainer.after] == [0, 0, 1, 1, 2, 2, 3, 3]
    for epoch, state in trainer.after:
        changed = {name for name in state if not torch.equal(state[name], trainer.start[name])}
        if epoch < 2:
            assert changed == {"heads.1.weight"}  # the coarsest head has no part in the loss
        else:
            assert any(name.startswith("encoder.") for name in changed)
    report = (tmp_path / "pretrained.txt").read_text()
    assert "heads.0.weight (no weights for it)" in report


def test_heads_of_the_same_classes_may_go_on(toy_datasets, tmp_path, source):
    task = make_task(toy_datasets, tmp_path, path=source)
    trainer, found = watched(task, new_heads=False, first_epochs=0), load_file(source)
    assert all(torch.equal(tensor, found[name]) for name, tensor in trainer.start.items())


def test_other_parts_may_learn_first(toy_datasets, tmp_path, source):
    parts = ("upsampling", "decoder", "heads")
    task = make_task(toy_datasets, tmp_path, path=source)
    trainer = watched(task, first_parts=parts, epochs=4, first_epochs=1)
    state = dict(trainer.after)[0]
    changed = {name for name in state if not torch.equal(state[name], trainer.start[name])}
    assert {name.partition(".")[0] for name in changed} == set(parts)


def test_parts_that_the_network_lacks_are_refused(toy_datasets, tmp_path, source):
    task = make_task(toy_datasets, tmp_path, path=source)
    with pytest.raises(UsageError, match="encoder, upsampling, decoder, heads"):
        watched(task, first_parts=("head",))


def test_the_rate_rises_twice_and_falls_as_that_of_the_default():
    trainer = Finetune(epochs=100, first_epochs=5, warmup_epochs=10, learning_rate=0.01)
    rates = [trainer.rate(epoch, []) for epoch in range(100)]
    assert rates[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert rates[5:15] == pytest.approx([0.001 * (step + 1) for step in range(10)])
    plain = TrainerV2(epochs=95, warmup_epochs=10, learning_rate=0.01)
    assert rates[5:] == pytest.approx([plain.rate(epoch, []) for epoch in range(95)])
    assert rates[15] == pytest.approx(0.01)
    assert rates[15:] == sorted(rates[15:], reverse=True)


@pytest.mark.parametrize(("epochs", "peak"), [(1000, 60), (100, 6), (4, 0)])
def test_the_length_of_the_warm_ups_follows_that_of_the_training(epochs, peak):
    trainer = Finetune(epochs=epochs)
    rates = [trainer.rate(epoch, []) for epoch in range(epochs)]
    assert rates[peak] == pytest.approx(1e-3)
    assert all(rate < 1e-3 for rate in rates[peak + 1 :])


def test_warm_ups_that_leave_nothing_are_refused():
    Finetune(epochs=61, first_epochs=10, warmup_epochs=50).check(RUNTIME)
    with pytest.raises(UsageError, match=r"leave none of trainer\.epochs=60"):
        Finetune(epochs=60, first_epochs=10, warmup_epochs=50).check(RUNTIME)
    with pytest.raises(UsageError, match="cycle_epochs"):
        Finetune(epochs=61, first_epochs=10, warmup_epochs=50, cycle_epochs=2).check(RUNTIME)


def test_without_weights_it_says_so(toy_datasets, tmp_path):
    task = make_task(toy_datasets, tmp_path)
    Finetune(**BRIEF).train(task)
    assert any("--pretrained" in warning for warning in task.report.warnings)
    assert (tmp_path / "weights.safetensors").is_file()


class InterruptedTrainingError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_stopped_fine_tuning_goes_on_exactly(toy_datasets, tmp_path, source, stop):
    settings = {**BRIEF, "first_epochs": 2, "warmup_epochs": 1}
    Finetune(**settings).train(make_task(toy_datasets, tmp_path / "a", path=source))

    def epoch_finished(line):
        if line["epoch"] == stop:
            raise InterruptedTrainingError

    broken = make_task(toy_datasets, tmp_path / "b", path=source, epoch_finished=epoch_finished)
    with pytest.raises(InterruptedTrainingError):
        Finetune(**settings).train(broken)
    Finetune(**settings).train(make_task(toy_datasets, tmp_path / "b", path=source))
    expected, found = (load_file(tmp_path / side / "weights.safetensors") for side in "ab")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


def test_the_first_convolution_is_repeated_for_more_channels(toy_datasets, tmp_path, source):
    task = make_task(toy_datasets, tmp_path, name="two_channels", path=source)
    trainer, found = watched(task), load_file(source)
    expected = torch.cat([found[STEM], found[STEM]], dim=1) / 2
    torch.testing.assert_close(trainer.start[STEM], expected)
    assert f"{STEM} (" not in (tmp_path / "pretrained.txt").read_text()
    assert any("of 1 channels is now of 2" in text for text in task.report.messages)


@pytest.mark.parametrize(("old", "new"), [(1, 4), (2, 4), (2, 5), (3, 1), (4, 2), (5, 2), (3, 3)])
def test_images_whose_channels_repeat_give_what_they_gave(old, new):
    """Where the larger side holds the smaller one again and again, nothing changes."""
    torch.manual_seed(0)
    weight, small = torch.randn(6, old, 3, 3), torch.randn(2, min(old, new), 8, 8)
    again = [small[:, [c % small.shape[1] for c in range(count)]] for count in (old, new)]
    convolve = torch.nn.functional.conv2d
    expected = convolve(again[0], weight)
    torch.testing.assert_close(convolve(again[1], match_channels(weight, new)), expected)


def test_channels_of_a_previous_stage_begin_at_nothing():
    weight = torch.randn(4, 1, 3, 3, 3)
    found = match_inputs(weight, images=2, inputs=5)
    torch.testing.assert_close(found[:, :2], match_channels(weight, 2))
    assert found.shape == (4, 5, 3, 3, 3)
    assert not found[:, 2:].any()
