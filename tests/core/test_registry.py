"""The registry: discovery through entry points, naming rules, clashes, blocking, broken plugins, observers."""

import importlib
import sys

import pytest

from nnunet_core import Component, hookimpl
from nnunet_core.errors import PluginError, UnknownComponentError, UsageError
from nnunet_core.registry import PluginInfo, Registry

LOSS = """
from nnunet_core import Component, Variant, hookimpl

@hookimpl
def nnunet_losses():
    return [Component("{name}", "nnunet_builtin.losses:DiceCE")]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that puts a distribution with one plugin module on sys.path."""

    def put(distribution, plugin, code, version="1.0"):
        folder = tmp_path / distribution
        module = f"{distribution}_hooks"
        info = folder / f"{distribution}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(f"{module}\n")
        (info / "entry_points.txt").write_text(f"[nnunet_plugins]\n{plugin} = {module}\n")
        (info / "RECORD").write_text(f"{module}.py,,\n")
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, module, raising=False)
        return module

    return put


def row(registry, name):
    return next(info for info in registry.plugins() if info.name == name)


def test_the_builtin_plugin_is_found_like_any_other():
    info = row(Registry.discover(), "builtin")
    assert (info.status, info.distribution, info.module) == ("active", "nnunet-core", "nnunet_builtin.plugin")


def test_a_bare_name_works_while_it_is_unique(install):
    install("alpha", "alpha", LOSS.format(name="mine"))
    resolved = Registry.discover().resolve("loss", "mine")
    assert (resolved.reference, resolved.distribution, resolved.version) == ("alpha/mine", "alpha", "1.0")


def test_an_ambiguous_name_lists_distributions_versions_and_full_names(install):
    install("alpha", "alpha", LOSS.format(name="mine"), "1.2")
    install("beta", "beta", LOSS.format(name="mine"), "3.4")
    registry = Registry.discover()
    with pytest.raises(UnknownComponentError) as error:
        registry.resolve("loss", "mine")
    for part in ("alpha 1.2", "beta 3.4", "'alpha/mine'", "'beta/mine'"):
        assert part in str(error.value)
    assert registry.resolve("loss", "beta/mine").version == "3.4"


def test_a_builtin_name_is_never_shadowed(install):
    install("alpha", "alpha", LOSS.format(name="dice_ce"))
    registry = Registry.discover()
    assert registry.resolve("loss", "dice_ce").reference == "builtin/dice_ce"
    assert registry.resolve("loss", "alpha/dice_ce").distribution == "alpha"


def test_two_distributions_with_one_plugin_name_are_both_left_out(install):
    install("alpha", "same", LOSS.format(name="one"))
    install("beta", "same", LOSS.format(name="two"))
    registry = Registry.discover()
    info = row(registry, "same")
    assert info.status == "broken"
    assert "alpha 1.0" in info.error
    assert "beta 1.0" in info.error
    for name in ("one", "two"):
        with pytest.raises(UnknownComponentError):
            registry.resolve("loss", name)


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("from nnunet_core import hookimpl\n@hookimpl\ndef nnunet_losses():\n    return [1]", "Component"),
        ("from nnunet_core import hookimpl\n@hookimpl\ndef nnunet_losses():\n    raise KeyError('x')", "KeyError"),
        ("from nnunet_core import hookimpl\n@hookimpl\ndef nnunet_typos():\n    return []", "nnunet_typos"),
        (LOSS.format(name="bad name"), "bad name"),
    ],
)
def test_a_broken_plugin_is_a_row_and_fails_only_what_asks_for_it(install, code, part):
    install("alpha", "alpha", code)
    registry = Registry.discover()
    info = row(registry, "alpha")
    assert info.status == "broken"
    assert part in info.error
    assert registry.resolve("loss", "dice_ce")
    with pytest.raises(PluginError) as error:
        registry.resolve("loss", "alpha/mine")
    assert error.value.__cause__ is info.cause


def test_blocked_plugins_are_not_imported(install, monkeypatch):
    module = install("alpha", "alpha", LOSS.format(name="mine"))
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", "")
    registry = Registry.discover(["alpha"])
    assert row(registry, "alpha").status == "blocked"
    assert module not in sys.modules
    with pytest.raises(UsageError, match="blocked"):
        registry.resolve("loss", "alpha/mine")
    assert row(Registry.discover(), "alpha").status == "blocked", "the environment carries it to workers"


def test_an_allow_list_keeps_the_builtin_plugin(install, monkeypatch):
    install("alpha", "alpha", LOSS.format(name="mine"))
    install("beta", "beta", LOSS.format(name="other"))
    monkeypatch.setenv("NNUNET_PLUGINS", "beta")
    status = {info.name: info.status for info in Registry.discover().plugins()}
    assert (status["builtin"], status["alpha"], status["beta"]) == ("active", "blocked", "active")


def test_code_without_registration_is_found_with_its_distribution():
    resolved = Registry.discover().resolve("loss", "nnunet_builtin.losses:DiceCE")
    assert (resolved.name, resolved.distribution) == ("DiceCE", "nnunet-core")
    with pytest.raises(PluginError, match="DiceXE"):
        Registry.discover().resolve("loss", "nnunet_builtin.losses:DiceXE")


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(UnknownComponentError, match=r"Did you mean 'dice_ce'.*dice_topk"):
        Registry.discover().resolve("loss", "dice_cee")


def test_a_missing_requirement_says_what_to_install():
    registry = Registry.discover()

    class Plugin:
        @hookimpl
        def nnunet_losses(self):
            return [Component("needy", "nnunet_builtin.losses:DiceCE", requires=("no-such-distribution>=2",))]

    registry.register(Plugin(), PluginInfo("needy", "x", "needy", "1", "active"))
    with pytest.raises(PluginError, match=r"pip install 'no-such-distribution>=2'"):
        registry.resolve("loss", "needy").load()


class Requiring:
    """A plugin with one loss that requires something."""

    def __init__(self, requirement):
        self.requirement = requirement

    @hookimpl
    def nnunet_losses(self):
        return [Component("needy", "nnunet_builtin.losses:DiceCE", requires=(self.requirement,))]


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("pluggy>=999", r"needs 'pluggy>=999'; \d[\d.]* is installed. Run: pip install 'pluggy>=999'"),
        ("pluggy<1", r"needs 'pluggy<1'; \d"),
        ("pluggy>>1", "which is no requirement"),
        ("no-such-distribution", "not installed"),
    ],
)
def test_requirements_are_compared_with_what_is_installed(requirement, message):
    registry = Registry()
    registry.register(Requiring(requirement), PluginInfo("needy", "x", "needy", "1", "active"))
    with pytest.raises(PluginError, match=message):
        registry.resolve("loss", "needy").load()


@pytest.mark.parametrize(
    "requirement", ["pluggy>=1", "Pluggy", "pluggy[extra]>=1,<999", "no-such-thing; python_version < '3'"]
)
def test_requirements_that_are_met_load(requirement):
    registry = Registry()
    registry.register(Requiring(requirement), PluginInfo("needy", "x", "needy", "1", "active"))
    assert registry.resolve("loss", "needy").load().__name__ == "DiceCE"


def test_a_hook_may_have_any_name_of_its_own(install):
    code = (
        "from nnunet_core import Component, Variant, hookimpl\n"
        "@hookimpl(specname='nnunet_losses')\ndef my_losses():\n"
        "    return [Component('mine', 'nnunet_builtin.losses:DiceCE')]\n"
        "@hookimpl(specname='nnunet_losses')\ndef more_losses():\n"
        "    return [Component('other', 'nnunet_builtin.losses:DiceCE')]\n"
        "@hookimpl(specname='nnunet_variants')\ndef my_variants():\n    return [Variant('v', loss='mine')]\n"
    )
    install("alpha", "alpha", code)
    registry = Registry.discover()
    assert row(registry, "alpha").status == "active", row(registry, "alpha").error
    assert {registry.resolve("loss", name).reference for name in ("mine", "other")} == {"alpha/mine", "alpha/other"}
    assert registry.variant("v")[0].name == "alpha"


def test_a_wrapper_is_refused(install):
    code = "from nnunet_core import hookimpl\n@hookimpl(wrapper=True)\ndef nnunet_losses():\n    return (yield)\n"
    install("alpha", "alpha", code)
    registry = Registry.discover()
    assert "wrapper" in row(registry, "alpha").error
    assert registry.resolve("loss", "dice_ce").load()


def test_an_observer_that_raises_is_a_warning():
    seen = []

    class Good:
        @hookimpl
        def nnunet_epoch_finished(self, metrics):
            seen.append(metrics["epoch"])

    class Bad:
        @hookimpl
        def nnunet_epoch_finished(self, record, metrics):
            raise ValueError("no network")

    registry = Registry()
    registry.register(Bad(), PluginInfo("bad", "x", "bad", "1", "active"))
    registry.register(Good(), PluginInfo("good", "x", "good", "1", "active"))
    (warning,) = registry.hooks.epoch_finished(record=None, folder=None, metrics={"epoch": 3})
    assert "'bad'" in warning
    assert "no network" in warning
    assert seen == [3]
