"""The page on changing the training: its code, written down as a user would, trains and does what
it says.
"""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import small_training as small
import torch
from safetensors.torch import load_file

from nnunet_builtin.training import loop
from nnunet_builtin.training.checkpoint import CHECKPOINT
from nnunet_core.data.cases import PreparedCase
from nnunet_core.data.weights import InitialWeights
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build
from nnunet_core.runtime.files import file_digest
from nnunet_core.store.models import WEIGHTS

PAGE = Path(__file__).parents[2] / "docs/how-to/change-training.md"
CODE = re.findall(r'```python title="my_trainers\.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """Return a function that builds a trainer of the page by reference, with settings."""
    (tmp_path / "my_trainers.py").write_text("\n\n".join(CODE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_trainers", raising=False)
    importlib.invalidate_caches()

    def make(name, **settings):
        resolved = Registry().resolve("trainer", f"my_trainers:{name}")
        return build(resolved.with_settings({**small.SETTINGS, **settings}))

    yield make
    sys.modules.pop("my_trainers", None)


def lines_of(folder):
    return [json.loads(line) for line in (folder / loop.METRICS).read_text().splitlines()]


def test_the_examples_are_as_short_as_promised():
    bodies = [len(re.findall(r"^    .*\S", block, re.MULTILINE)) for block in CODE]
    assert len(CODE) == 7
    assert all(lines <= 6 for lines in bodies[:4])
    assert bodies[4] <= 40
    assert bodies[5] <= 20
    assert bodies[6] <= 8


def test_a_schedule(trainer, tmp_path):
    task = small.make_task(tmp_path / "fold_0")
    trainer("Halving", every=1).train(task)
    rates = [line["learning_rate"] for line in lines_of(task.folder)]
    assert rates == pytest.approx([0.01, 0.005, 0.0025])


def test_an_optimiser(trainer, tmp_path, monkeypatch):
    groups = []
    step = torch.optim.AdamW.step

    def watched(optimizer, *arguments, **more):
        groups.append([(group["lr"], group["weight_decay"]) for group in optimizer.param_groups])
        return step(optimizer, *arguments, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trainer("TwoRates").train(small.make_task(tmp_path / "fold_0"))
    rates = [0.01 * (1 - epoch / 3) ** 0.9 for epoch in (0, 1, 2) for _ in range(3)]
    for rate, (others, norms) in zip(rates, groups, strict=True):
        assert others == pytest.approx((rate, 0.01))
        assert norms == pytest.approx((0.1 * rate, 0.0))


def test_a_sampler(trainer, tmp_path):
    task = small.make_task(tmp_path / "fold_0")
    names = task.training
    sampler = trainer("Weighted").make_sampler(task, names, 4000)
    drawn = sampler.draw_names(np.random.default_rng(0))
    shares = [drawn.count(name) / len(drawn) for name in names]
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.4], atol=0.03)
    folder = small.make_task(tmp_path / "b" / "fold_0").folder
    trainer("Weighted").train(small.make_task(folder))
    assert (folder / WEIGHTS).is_file()


def test_a_sampler_of_cases_with_a_rare_class(trainer, tmp_path):
    task = small.make_task(tmp_path / "fold_0")
    rare = task.training[0]
    for name in task.training[1:]:
        case = task.store.open(name)
        assert case.class_locations
        locations = {label: n for label, n in case.class_locations.items() if label != 2}
        label = np.where(case.label[:] == 2, 1, case.label[:]).astype(np.int8)
        cut = PreparedCase(name, case.images[:], label, case.geometry, locations)
        task.store.write(cut, "key", small.PATCH)
    sampler = trainer("OnlyWith").make_sampler(task, task.training, 50)
    assert set(sampler.draw_names(np.random.default_rng(0))) == {rare}


def test_a_step_of_ones_own_makes_two_passes_and_one_update(trainer, tmp_path, monkeypatch):
    plain = small.train(tmp_path / "a" / "fold_0", {"gradient_clip": None})
    still = small.make_task(tmp_path / "b" / "fold_0")
    trainer("Sharp", radius=0.0, gradient_clip=None).train(still)
    for name, tensor in load_file(plain / WEIGHTS).items():
        torch.testing.assert_close(load_file(still.folder / WEIGHTS)[name], tensor)
    passes = []
    backward = loop.Loop.backward
    monkeypatch.setattr(
        loop.Loop, "backward", lambda self, loss: passes.append(1) or backward(self, loss)
    )
    sharp = small.make_task(tmp_path / "c" / "fold_0")
    trainer("Sharp").train(sharp)
    assert len(passes) == 2 * 9
    one, other = (load_file(folder / WEIGHTS) for folder in (plain, sharp.folder))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_mean_teacher_learns_and_is_saved(trainer, tmp_path):
    plain = small.make_task(tmp_path / "a" / "fold_0")
    trainer("MeanTeacher", weight=0.0).train(plain)
    own = small.train(tmp_path / "b" / "fold_0")
    for name, tensor in load_file(own / WEIGHTS).items():
        torch.testing.assert_close(load_file(plain.folder / WEIGHTS)[name], tensor, rtol=0, atol=0)
    taught = small.make_task(tmp_path / "c" / "fold_0")
    trainer("MeanTeacher", weight=5.0).train(taught)
    one, other = (load_file(task.folder / WEIGHTS) for task in (plain, taught))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_mean_teacher_goes_on_exactly(trainer, tmp_path):
    """Without noise nothing is drawn beside the batches."""

    class StoppedTrainingError(Exception):
        pass

    def epoch_finished(line):
        if line["epoch"] == 2:
            raise StoppedTrainingError

    settings = {"weight": 5.0, "noise": 0.0, "epochs": 4}
    undisturbed = small.make_task(tmp_path / "a" / "fold_0")
    trainer("MeanTeacher", **settings).train(undisturbed)
    folder = tmp_path / "b" / "fold_0"
    with pytest.raises(StoppedTrainingError):
        trainer("MeanTeacher", **settings).train(
            small.make_task(folder, epoch_finished=epoch_finished)
        )
    content = torch.load(folder / CHECKPOINT, weights_only=True)
    assert set(content["modules"]) == {"teacher"}
    trainer("MeanTeacher", **settings).train(small.make_task(folder))
    for name, tensor in load_file(undisturbed.folder / WEIGHTS).items():
        assert torch.equal(load_file(folder / WEIGHTS)[name], tensor), name


def test_weights_to_start_from(trainer, tmp_path):
    source = small.train(tmp_path / "a" / "fold_0") / WEIGHTS
    initial = InitialWeights(path=str(source), digest=file_digest(source))
    task = small.make_task(tmp_path / "b" / "fold_0", cascade=True, initial=initial)
    seen = []

    class Seen(trainer("RepeatedChannels").__class__):
        def modules(self, network):
            seen.append(network.state_dict()["encoder.0.0.conv.weight"].clone())
            return {}

    Seen(**small.SETTINGS).train(task)
    first = load_file(source)["encoder.0.0.conv.weight"]
    torch.testing.assert_close(seen[0], first.repeat(1, 3, 1, 1, 1) / 3)
