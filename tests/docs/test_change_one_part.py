"""The page on changing one part: each class of its file can be built and does what it says."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_training as small
import torch
from pages import rows_of

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.augmentation import Sample
from nnunet_core.errors import PluginError
from nnunet_core.registry.discovery import Registry

TEXT = (Path(__file__).parents[2] / "docs/how-to/change-one-part.md").read_text()
(CODE,) = re.findall(r'```python title="mine\.py"\n(.*?)```', TEXT, re.DOTALL)
ROWS = [row for row in rows_of(TEXT, "Which page for which wish") if "mine:" in row[2]]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return the module of the page, lying in a folder as a user's does."""
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    importlib.invalidate_caches()
    yield importlib.import_module("mine")
    sys.modules.pop("mine", None)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_each_example_is_a_component_of_its_kind(row):
    name = row[1].strip("`")
    option = re.fullmatch(rf"`--(\w+) mine:{name}`", row[2])
    if option is None:
        settings = {"extra_steps": {"noise": [f"mine:{name}"]}}
        built(Registry.discover().resolve("augmentation", "v2").with_settings(settings))
    else:
        built(Registry().resolve(option[1], f"mine:{name}"))


def test_every_class_has_a_row():
    assert re.findall(r"^class (\w+)", CODE, re.MULTILINE) == [row[1].strip("`") for row in ROWS]


def test_losses(mine):
    logits, target = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 1, 4, 4, 4))
    plain = mine.DiceCE().build(batch_dice=False)
    assert mine.Doubled().build(batch_dice=False)(logits, target) == 2 * plain(logits, target)
    far = {"distance": torch.full((2, 1, 4, 4, 4), 11.0)}
    found = mine.NearBoundary().build(batch_dice=False)(logits, target, far)
    assert found == plain(torch.zeros_like(logits), target)


def test_a_schedule_and_an_optimiser(mine):
    assert [mine.Halving().rate(epoch, []) for epoch in (0, 99, 100)] == [0.01, 0.01, 0.005]
    optimizer = mine.MyAdam().make_optimizer([torch.nn.Parameter(torch.zeros(2))])
    assert optimizer.defaults["betas"] == (0.9, 0.98)


def test_a_predictor(mine, tmp_path):
    model = small.make_model(tmp_path, folds=2)
    images = np.random.default_rng(0).normal(size=(1, 11, 14, 9)).astype(np.float32)
    one = mine.SlidingWindow().load(replace(model, folds=model.folds[:1]))(images)
    np.testing.assert_array_equal(mine.FirstFold().load(model)(images), one)


def test_a_step(mine):
    sample = Sample(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), configuration=None)
    step = mine.Inverted(probability=1.0)
    decision = step.draw(np.random.default_rng(0), sample)
    assert torch.equal(step.apply(sample, decision).images, -sample.images)


@pytest.mark.usefixtures("mine")
def test_a_misspelt_ability_is_the_error_of_the_page(mine):
    class Own(mine.DefaultPreprocessor):
        def prepare_labels(self, label, geometry): ...

    mine.Own = Own
    with pytest.raises(PluginError) as caught:
        built(Registry().resolve("preprocessor", "mine:Own"))
    assert " ".join(f"error: {caught.value}".split()) in " ".join(TEXT.split())
