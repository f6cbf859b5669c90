"""Toy datasets, blocked discovery and plugins for one test."""

import subprocess
import sys

import numpy as np
import pytest

from nnunet_core.registry.discovery import Registry
from nnunet_core.testing.toys import NAMES

PLUGIN = """
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_losses():
    return [Component("mine", "tmpmine.losses:Mine")]
"""
FILES = {
    "tmpmine/__init__.py": "",
    "tmpmine/plugin.py": PLUGIN,
    "tmpmine/losses.py": "class Mine:\n    def build(self, **data):\n        return None\n",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_toy_dataset_is_what_its_name_says(toy_datasets, name):
    dataset, cases = toy_datasets.dataset(name), toy_datasets.cases(name)
    found = [set(np.unique(case.label)) for case in cases]
    expected = {0, 1, 2, 3} if name == "ignore" else {0, 1, 2}
    assert found[:-1] == [expected] * 3
    assert found[-1] == ({0} if name == "empty_foreground" else expected)
    assert bool(dataset.labels.regions) == (name == "regions")
    assert dataset.labels.ignore == (3 if name == "ignore" else None)
    assert len(cases[0].images) == len(dataset.channels) == (2 if name == "two_channels" else 1)
    assert (cases[0].images.shape[1] == 1) == (name in {"2d", "one_slice"})
    store = toy_datasets.prepared(name)
    assert store.names() == dataset.names
    slices = name in {"2d", "one_slice"}
    assert toy_datasets.configuration(name).dimensions == (2 if slices else 3)


def test_toy_datasets_are_made_once(toy_datasets):
    path = toy_datasets.folder("3d") / "dataset.json"
    before = path.stat().st_mtime_ns
    toy_datasets.prepared("3d")
    assert toy_datasets.folder("3d") == path.parent
    assert path.stat().st_mtime_ns == before


def names_in_new_process():
    code = (
        "from nnunet_core.registry.discovery import Registry\n"
        "print(*[p.name for p in Registry.discover().plugins() if p.status == 'active'])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return found.stdout.split()


def test_a_plugin_is_active_for_one_test_here_and_in_other_processes(tmp_plugin):
    registry = tmp_plugin("tmpmine.plugin", FILES, version="2.5")
    resolved = registry.resolve("loss", "mine")
    assert (resolved.distribution, resolved.version) == ("tmpmine", "2.5")
    assert resolved.load().__module__ == "tmpmine.losses"
    assert "tmpmine" in names_in_new_process()


def test_it_is_gone_afterwards():
    assert "tmpmine" not in {info.name for info in Registry.discover().plugins()}
    assert "tmpmine" not in sys.modules
    assert "tmpmine" not in names_in_new_process()


@pytest.mark.usefixtures("blocked_discovery")
def test_blocked_discovery_leaves_ours_and_the_plugins_of_the_test(tmp_plugin):
    tmp_plugin("tmpmine.plugin", FILES)
    first = {info.name for info in Registry.discover().plugins() if info.status == "active"}
    assert {"builtin", "tmpmine"} <= first
    assert set(names_in_new_process()) == first


@pytest.mark.usefixtures("blocked_discovery")
def test_blocked_discovery_blocks_what_is_installed(tmp_plugin, monkeypatch):
    tmp_plugin("tmpmine.plugin", FILES)
    monkeypatch.setenv("NNUNET_PLUGINS", "-")  # as if somebody had installed it
    (info,) = [info for info in Registry.discover().plugins() if info.name == "tmpmine"]
    assert info.status == "blocked"
