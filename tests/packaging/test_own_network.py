"""The page on own networks: its code, written down as a user would, trains networks of MONAI and
predicts with them.
"""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import small_training as small
from safetensors.torch import load_file
from strangers import short_run

from nnunet_builtin.inference.sliding_window import SlidingWindow
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build
from nnunet_core.store.models import WEIGHTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monai") is None,
        reason="MONAI is not installed (pip install 'nnunet-core[dev]')",
    ),
]

PAGE = Path(__file__).parents[2] / "docs/how-to/own-network.md"
CODE = re.findall(r'```python title="my_networks\.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)
SMALL = {"Basic": {"features": [4, 4, 8, 8, 8, 4]}, "Dynamic": {}}
#: The patch of BasicUNet is halved four times.
PATCHES = {"Basic": (32, 32, 32), "Dynamic": (16, 16, 16)}


@pytest.fixture
def builder_of(tmp_path, monkeypatch):
    """Return a function that makes a builder of the page by reference."""
    (tmp_path / "my_networks.py").write_text("\n\n".join(CODE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    importlib.invalidate_caches()

    def make(name):
        resolved = Registry().resolve("network", f"my_networks:{name}")
        return build(resolved.with_settings(SMALL[name]))

    yield make
    sys.modules.pop("my_networks", None)


def configuration_of(name):
    network = small.isotropic(3, output_channels=3, base_features=4)
    changes = {"patch_size": PATCHES[name], "network": network}
    return small.CONFIGURATION.model_copy(update=changes)


def train(folder, name, builder, **settings):
    task = {"network": builder, "configuration": configuration_of(name)}
    brief = {"epochs": 2, "iterations_per_epoch": 2, **settings}
    return small.train(folder, brief, **task)


def test_the_first_example_is_as_short_as_promised():
    lines = [line for line in CODE[0].splitlines() if line.strip()]
    assert len(lines) <= 13


@pytest.mark.parametrize("deep_supervision", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_it_trains_shows_itself_and_predicts(tmp_path, builder_of, name, deep_supervision):
    builder, folder = builder_of(name), tmp_path / "fold_0"
    train(folder, name, builder, deep_supervision=deep_supervision, ema=0.5)
    assert "memory of one patch" in (folder / "network.txt").read_text()
    task = small.make_task(folder)
    model = TrainedModel(
        (folder,), configuration_of(name), task.labels, builder, task.runtime, mirror_axes=()
    )
    probabilities = SlidingWindow().load(model)(np.zeros((1, *small.SHAPE), np.float32)).whole()
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_deep_supervision_trains_other_heads(tmp_path, builder_of):
    builder = builder_of("Dynamic")
    initial = builder.build(configuration_of("Dynamic").network).state_dict()
    heads = [name for name in initial if name.startswith("deep_supervision_heads.0")]
    found = {}
    for wanted in (True, False):
        folder = tmp_path / str(wanted) / "fold_0"
        train(folder, "Dynamic", builder, deep_supervision=wanted, weight_decay=0)
        found[wanted] = load_file(folder / WEIGHTS)
    assert any("weight" in name for name in heads)
    for name in heads:
        assert not found[True][name].equal(found[False][name]), name


def test_a_run_trains_it_by_reference(tmp_path, builder_of, tiny):
    options = ("--network", "my_networks:Dynamic", "--set", "planner.base_features=4")
    content = short_run(tmp_path, tiny, *options)
    assert content["status"] == "finished"
    assert content["components"]["network"]["reference"] == "my_networks:Dynamic"
