"""The API window: components of an older and a newer core, and names that were renamed."""

import importlib
import sys

import fake_plugins
import pytest
from strangers import on_path

import nnunet_core
from nnunet_core import API, Component, hookimpl
from nnunet_core.errors import PluginError, RenamedWarning
from nnunet_core.registry import needs, remarks
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.registry.needs import unmet

DICE = fake_plugins.DICE


@pytest.fixture
def core_of_api(monkeypatch):
    """Return a function that lets the core be of another API."""

    def be(api):
        monkeypatch.setattr(needs, "API", api)
        monkeypatch.setattr(remarks, "API", api)

    return be


@pytest.mark.parametrize(
    ("core", "api", "message"),
    [
        (3, 3, None),
        (3, 2, None),
        (
            3,
            4,
            "needs API 4 of nnunet-core; the one that is installed has API 3. Run: pip install ",
        ),
        (3, 1, "made for API 1 of nnunet-core; .* serves 2 and 3. Run: pip install --upgrade lab"),
        (1, 1, None),
        (1, 2, "needs API 2"),
    ],
)
def test_the_core_serves_its_api_and_the_one_before(core_of_api, core, api, message):
    core_of_api(core)
    registry = Registry()
    registry.register(Lab(Component("mine", DICE, api=api)), info("lab"))
    resolved = registry.resolve("loss", "lab/mine")
    if message is None:
        assert resolved.load().__name__ == "DiceCE"
    else:
        with pytest.raises(PluginError, match=message):
            resolved.load()


class Lab:
    """A plugin with one loss."""

    def __init__(self, component):
        self.component = component

    @hookimpl
    def nnunet_losses(self):
        return [self.component]


def info(name):
    return PluginInfo(name, "x", name, "1", "active")


def test_a_component_that_says_nothing_is_of_the_first_api():
    """A number that grew with the core would let everything pass, for ever."""
    assert Component("mine", DICE).api == 1
    assert API >= 1


def test_a_component_of_the_api_before_is_noted(core_of_api):
    core_of_api(2)
    registry = Registry()
    registry.register(Lab(Component("mine", DICE, api=1)), info("lab"))
    (note,) = remarks.remarks(registry)
    assert "'lab/mine' is written for API 1 of nnunet-core; this one has API 2" in note


@pytest.mark.parametrize("api", ["2", 1.5, True, None])
def test_an_api_is_a_whole_number(api):
    with pytest.raises(PluginError, match="a whole number"):
        Registry().register(Lab(Component("mine", DICE, api=api)), info("lab"))


@pytest.mark.parametrize("requires", ["monai", [3], None])
def test_requirements_are_texts(requires):
    with pytest.raises(PluginError, match="a tuple of texts"):
        Registry().register(Lab(Component("mine", DICE, requires=requires)), info("lab"))


def test_a_need_is_said_with_the_package_to_upgrade(core_of_api):
    core_of_api(5)
    component = Component("mine", DICE, requires=("no-such-thing",), api=2)
    old, missing = unmet(component, "lab")
    assert old.endswith("pip install --upgrade lab")
    assert "no-such-thing" in missing


# a plugin that fits the core of today and the next one, whose hook only that one has
BOTH = """
from nnunet_core import Component, hookimpl

@hookimpl(optionalhook=True)
def nnunet_hooks_of_tomorrow():
    return []

@hookimpl
def nnunet_losses():
    return [Component("mine", "nnunet_builtin.losses.dice_ce:DiceCE")]
"""
NEWER = """
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_losses():
    return [Component("mine", "nnunet_builtin.losses.dice_ce:DiceCE", field_of_tomorrow=3)]
"""


def test_plugins_of_another_core_are_found_on_the_path(tmp_path):
    fake_plugins.put(tmp_path, "both", BOTH)
    fake_plugins.put(tmp_path, "newer", NEWER)
    older = fake_plugins.losses(f"'old', '{DICE}', api={API - 2}")
    fake_plugins.put(tmp_path, "older", older, version="0.4")
    with on_path(tmp_path):
        registry = Registry.discover()
        rows = {row.name: row for row in registry.plugins()}
        assert registry.resolve("loss", "both/mine").load()
        with pytest.raises(PluginError, match="pip install --upgrade older"):
            registry.resolve("loss", "older/old").load()
    assert rows["newer"].status == "broken"
    assert "field_of_tomorrow" in rows["newer"].error
    assert rows["older"].status == "active", "what nobody asks for disturbs nobody"


def test_a_renamed_name_of_the_root_warns_with_the_new_one(monkeypatch):
    monkeypatch.setitem(nnunet_core._RENAMED, "Part", "nnunet_core:Component")
    with pytest.warns(RenamedWarning, match=r"nnunet_core\.Part is now nnunet_core\.Component"):
        from nnunet_core import Part
    assert Part is Component
    with pytest.raises(ImportError):
        from nnunet_core import Nothing  # noqa: F401


CONTRACT = """
from nnunet_core.runtime.deprecation import renamed

class LossBuilder: ...

__getattr__ = renamed(__name__, {"LossFactory": "old_contract:LossBuilder"})
"""


def test_a_renamed_name_of_a_contract_warns_where_it_is_used(tmp_path, monkeypatch):
    (tmp_path / "old_contract.py").write_text(CONTRACT)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    module = importlib.import_module("old_contract")
    with pytest.warns(RenamedWarning, match="until the next API") as caught:
        assert module.LossFactory is module.LossBuilder
    assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = module.Other
    del sys.modules["old_contract"]
