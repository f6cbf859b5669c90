"""The registry: discovery through entry points, naming rules, clashes, blocking, broken plugins,
observers.
"""

import importlib
import os
import sys

import pytest

from nnunet_cli.app import commands
from nnunet_cli.main import main
from nnunet_cli.makers import made
from nnunet_core import Component, hookimpl
from nnunet_core.errors import PluginError, UnknownComponentError, UsageError
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.run import Request
from nnunet_core.store.workspace import Workspace

LOSS = """
from nnunet_core import Component, Variant, hookimpl

@hookimpl
def nnunet_losses():
    return [Component("{name}", "nnunet_builtin.losses.dice_ce:DiceCE")]
"""

VARIANTS = """
from nnunet_core import Variant, hookimpl

@hookimpl
def nnunet_variants():
    return [Variant(name) for name in {names}]
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
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
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
    assert (info.status, info.distribution, info.module) == (
        "active",
        "nnunet-core",
        "nnunet_builtin.plugin",
    )


def test_a_bare_name_works_while_it_is_unique(install):
    install("alpha", "alpha", LOSS.format(name="mine"))
    resolved = Registry.discover().resolve("loss", "mine")
    assert (resolved.reference, resolved.distribution, resolved.version) == (
        "alpha/mine",
        "alpha",
        "1.0",
    )


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
        (
            "from nnunet_core import hookimpl\n@hookimpl\ndef nnunet_losses():\n    return [1]",
            "Component",
        ),
        (
            "from nnunet_core import hookimpl\n@hookimpl\ndef nnunet_losses():\n    raise "
            "KeyError('x')",
            "KeyError",
        ),
        (
            "from nnunet_core import hookimpl\n@hookimpl\ndef nnunet_typos():\n    return []",
            "nnunet_typos",
        ),
        (LOSS.format(name="bad name"), "bad name"),
        (VARIANTS.format(names=["bad name"]), "a variant with name 'bad name'; allowed"),
        (VARIANTS.format(names=["one", "one"]), "two variants named 'one'"),
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


def test_blocked_plugins_are_not_imported(install):
    module = install("alpha", "alpha", LOSS.format(name="mine"))
    before = dict(os.environ)
    registry = Registry.discover(["alpha"])
    assert row(registry, "alpha").status == "blocked"
    assert module not in sys.modules
    with pytest.raises(UsageError, match="blocked"):
        registry.resolve("loss", "alpha/mine")
    assert dict(os.environ) == before, "a library changes nothing of its caller"
    assert row(Registry.discover(), "alpha").status == "active"


def _status(plugin: str) -> str:
    return row(Registry.discover(), plugin).status


def test_a_plugin_blocked_on_the_command_line_is_blocked_in_every_worker(monkeypatch, capsys):
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", "demo")
    discover, seen = Registry.discover, []

    def seeing():
        seen.append(os.environ["NNUNET_DISABLE_PLUGINS"])
        return discover()

    monkeypatch.setattr(Registry, "discover", seeing)
    with pytest.raises(SystemExit):
        main(["plugins", "list", "--no-plugin", "dicom", "--no-plugin=pictures"])
    assert capsys.readouterr().out.count(": blocked") == 3
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", seen[0])
    with Workers(2) as workers:
        found = list(workers.each(_status, ["dicom", "pictures", "demo", "formats"]))
    assert found == ["blocked", "blocked", "blocked", "active"]


def test_an_allow_list_keeps_the_builtin_plugin(install, monkeypatch):
    install("alpha", "alpha", LOSS.format(name="mine"))
    install("beta", "beta", LOSS.format(name="other"))
    monkeypatch.setenv("NNUNET_PLUGINS", "beta")
    status = {info.name: info.status for info in Registry.discover().plugins()}
    assert (status["builtin"], status["alpha"], status["beta"]) == ("active", "blocked", "active")


@pytest.mark.parametrize("plugin", ["builtin", "formats"])
def test_nobody_takes_the_name_of_a_plugin_of_ours(install, plugin):
    install("alpha", plugin, LOSS.format(name="mine"))
    registry = Registry.discover()
    assert (row(registry, plugin).status, row(registry, plugin).distribution) == (
        "active",
        "nnunet-core",
    )
    assert registry.resolve("loss", "dice_ce").is_own
    with pytest.raises(UnknownComponentError):
        registry.resolve("loss", "mine")


def test_a_plugin_that_calls_itself_builtin_has_no_privilege(install):
    install("alpha", "alpha", LOSS.format(name="dice_ce"))
    resolved = Registry.discover().resolve("loss", "alpha/dice_ce")
    assert not resolved.is_own


def test_one_of_our_plugins_is_blocked_alone():
    registry = Registry.discover(["dicom"])
    assert row(registry, "dicom").status == "blocked"
    formats = {resolved.name for resolved in registry.components("image_format")}
    assert "nifti" in formats
    assert "dicom" not in formats


def test_an_allow_list_keeps_every_reader(monkeypatch):
    monkeypatch.setenv("NNUNET_PLUGINS", "nothing")
    formats = {resolved.name for resolved in Registry.discover().components("image_format")}
    assert {"nifti", "dicom"} <= formats


COMMANDS = """
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_commands():
    return [Component(name, "alpha_hooks:work", name) for name in {names}]

def work(number: int = 2):
    "Work."
    print("worked", number)
"""


def test_commands_of_plugins_may_be_in_groups_and_take_no_name_of_ours(install, capsys):
    names = ["dataset shrink", "dataset verify", "train", "lab count", "models"]
    install("alpha", "alpha", COMMANDS.format(names=names))
    found = commands(Registry.discover())
    assert {name for name, (target, _) in found.items() if target == "alpha_hooks:work"} == {
        *("dataset shrink", "lab count"),
        *("alpha/dataset verify", "alpha/train", "alpha/models"),
    }
    assert "(alpha 1.0)" in found["lab count"][1]
    for words in (["dataset", "shrink"], ["lab", "count"], ["alpha/train"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--number", "3"])
        assert ended.value.code in (0, None)
        assert "worked 3" in capsys.readouterr().out


def test_a_command_that_lacks_something_says_so(install, capsys):
    needy = COMMANDS.format(names=["count"]).replace("name)", "name, requires=('nowhere>=2',))")
    install("alpha", "alpha", needy)
    with pytest.raises(SystemExit) as ended:
        main(["count"])
    assert ended.value.code == 1
    assert "pip install 'nowhere>=2'" in capsys.readouterr().err


def test_a_command_of_three_words_is_refused(install):
    install("alpha", "alpha", COMMANDS.format(names=["one two three"]))
    assert "one two three" in row(Registry.discover(), "alpha").error


DATASET = """
from dataclasses import dataclass
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_datasets():
    return [Component("boxes", "alpha_hooks:Boxes")]

@dataclass
class Boxes:
    variant: str = "demo"
    folds: tuple[str, ...] = ("1",)
    predict: str = ""

    def make(self, raw, report):
        (raw / "Dataset005_Boxes").mkdir(parents=True)
        return raw / "Dataset005_Boxes"
"""


def test_a_plugin_may_make_a_dataset_that_is_run_by_its_name(install, tmp_path):
    install("alpha", "alpha", DATASET)
    workspace, registry = Workspace.find(tmp_path / "ws"), Registry.discover()
    request = made(Request("boxes"), registry, workspace, Silence())
    assert request.dataset == str(workspace.raw / "Dataset005_Boxes")
    assert (request.variant, request.folds, request.predict, request.output) == (
        "demo",
        ("1",),
        None,
        None,
    )
    assert made(Request("other"), registry, workspace, Silence()) == Request("other")


def test_what_the_user_chose_wins_over_the_maker_of_the_dataset(install, tmp_path):
    install("alpha", "alpha", DATASET)
    chosen = Request(
        "boxes", variant="mine", folds=("0",), predict=tmp_path, output=tmp_path / "out"
    )
    request = made(chosen, Registry.discover(), Workspace.find(tmp_path / "ws"), Silence())
    assert (request.variant, request.folds) == ("mine", ("0",))
    assert (request.predict, request.output) == (tmp_path, tmp_path / "out")


def test_code_without_registration_is_found_with_its_distribution():
    resolved = Registry.discover().resolve("loss", "nnunet_builtin.losses.dice_ce:DiceCE")
    assert (resolved.name, resolved.distribution) == ("DiceCE", "nnunet-core")
    with pytest.raises(PluginError, match="DiceXE"):
        Registry.discover().resolve("loss", "nnunet_builtin.losses.dice_ce:DiceXE")


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(UnknownComponentError, match=r"Did you mean 'dice_ce'.*dice_topk"):
        Registry.discover().resolve("loss", "dice_cee")


def test_a_missing_requirement_says_what_to_install():
    registry = Registry.discover()

    class Plugin:
        @hookimpl
        def nnunet_losses(self):
            return [
                Component(
                    "needy",
                    "nnunet_builtin.losses.dice_ce:DiceCE",
                    requires=("no-such-distribution>=2",),
                )
            ]

    registry.register(Plugin(), PluginInfo("needy", "x", "needy", "1", "active"))
    with pytest.raises(PluginError, match=r"pip install 'no-such-distribution>=2'"):
        registry.resolve("loss", "needy").load()


class Requiring:
    """A plugin with one loss that requires something."""

    def __init__(self, requirement):
        self.requirement = requirement

    @hookimpl
    def nnunet_losses(self):
        return [
            Component("needy", "nnunet_builtin.losses.dice_ce:DiceCE", requires=(self.requirement,))
        ]


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        (
            "pluggy>=999",
            r"needs 'pluggy>=999'; \d[\d.]* is installed. Run: pip install 'pluggy>=999'",
        ),
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
    "requirement",
    ["pluggy>=1", "Pluggy", "pluggy[extra]>=1,<999", "no-such-thing; python_version < '3'"],
)
def test_requirements_that_are_met_load(requirement):
    registry = Registry()
    registry.register(Requiring(requirement), PluginInfo("needy", "x", "needy", "1", "active"))
    assert registry.resolve("loss", "needy").load().__name__ == "DiceCE"


def test_a_hook_may_have_any_name_of_its_own(install):
    code = (
        "from nnunet_core import Component, Variant, hookimpl\n"
        "@hookimpl(specname='nnunet_losses')\ndef my_losses():\n"
        "    return [Component('mine', 'nnunet_builtin.losses.dice_ce:DiceCE')]\n"
        "@hookimpl(specname='nnunet_losses')\ndef more_losses():\n"
        "    return [Component('other', 'nnunet_builtin.losses.dice_ce:DiceCE')]\n"
        "@hookimpl(specname='nnunet_variants')\ndef my_variants():\n    return [Variant('v', "
        "loss='mine')]\n"
    )
    install("alpha", "alpha", code)
    registry = Registry.discover()
    assert row(registry, "alpha").status == "active", row(registry, "alpha").error
    assert {registry.resolve("loss", name).reference for name in ("mine", "other")} == {
        "alpha/mine",
        "alpha/other",
    }
    assert registry.variant("v")[0].name == "alpha"


def test_a_wrapper_is_refused(install):
    imported = "from nnunet_core import hookimpl\n"
    code = f"{imported}@hookimpl(wrapper=True)\ndef nnunet_losses():\n    return (yield)\n"
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


@pytest.mark.parametrize(
    "reference", ["timeit:Timer", "", 3, None, ["dice_ce"], "a\rb", "builtin/v21"]
)
def test_a_file_names_what_is_registered(reference):
    registry = Registry.discover()
    with pytest.raises(UnknownComponentError, match=r"^loss of file.* dice_ce.* Do that\."):
        registry.registered("loss", reference, "loss of file", "Do that.")
    for name in ("dice_ce", "builtin/dice_ce"):
        found = registry.registered("loss", name, "loss of file", "Do that.")
        assert found == registry.resolve("loss", "dice_ce")
