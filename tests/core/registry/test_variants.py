"""Variants: composed from left to right, read from TOML files and written to them, named and
identified.
"""

import json
from pathlib import Path

import pytest
from commands import nnunet

from nnunet_core import Component, Variant, hookimpl
from nnunet_core.errors import PluginError, SettingsError, UnknownComponentError, UsageError
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.registry.provenance import component_record
from nnunet_core.registry.variants import read
from nnunet_core.stages.method import choose, keep_variant, save_variant
from nnunet_core.store.origins import options_of, variants_of

SHORT = """
summary = "short, with another loss"
loss = "dice_topk"

[settings.trainer]
epochs = 5
"""
DICE = "nnunet_builtin.losses.dice_ce:DiceCE"


class Plugin:
    """A stranger's variants, one of which chooses a trainer and sets it."""

    @hookimpl
    def nnunet_trainers(self):
        return [Component("mine", "nnunet_builtin.training.trainer:TrainerV2")]

    @hookimpl
    def nnunet_variants(self):
        return [
            Variant("large", planner="v21_32GB", settings={"trainer": {"epochs": 7}}),
            Variant("own", trainer="lab/mine", settings={"trainer": {"epochs": 9}}),
        ]


@pytest.fixture(scope="module")
def registry():
    found = Registry.discover()
    found.register(Plugin(), PluginInfo("lab", "x", "lab", "1.5", "active"))
    return found


@pytest.fixture
def toml(tmp_path):
    """Return a function that writes a variant and returns its path as a reference."""

    def put(text, name="short.toml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return put


def settings_of(method, kind):
    return dict(method.components[kind].component.settings)


def test_later_variants_go_on_top_of_earlier_ones(registry, toml):
    method = choose(registry, ["demo", "large", toml(SHORT)], {}, {"trainer": {"momentum": 0.5}})
    assert method.components["planner"].name == "v21_32GB"
    assert settings_of(method, "planner") == {"gpu_memory_gb": 32}, "max_batch_size was for v21"
    assert method.components["loss"].name == "dice_topk"
    trainer = settings_of(method, "trainer")
    assert (trainer["epochs"], trainer["iterations_per_epoch"]) == (5, 20)
    demo, large, short, user = method.bundle.changes
    assert demo.startswith("variant demo: planner.max_batch_size=2, trainer.epochs=10")
    assert large == (
        "variant large: planner builtin/v21_32GB (was builtin/v21), trainer.epochs=7 (was 10)"
    )
    assert "loss builtin/dice_topk (was builtin/dice_ce), trainer.epochs=5 (was 7)" in short
    assert user == "command line: trainer.momentum=0.5"
    (lost,) = method.bundle.lost
    assert "variant large chooses another planner" in lost
    assert "planner.max_batch_size=2" in lost


def test_the_order_decides(registry, toml):
    short = toml(SHORT)
    epochs = [
        settings_of(choose(registry, order), "trainer")["epochs"]
        for order in (["large", short], [short, "large"])
    ]
    assert epochs == [5, 7]


def test_the_same_component_under_another_name_keeps_its_settings(registry):
    for reference in ("v2", "builtin/v2"):
        method = choose(registry, "demo", {"trainer": reference})
        assert (settings_of(method, "trainer")["epochs"], method.name) == (10, "demo")


def test_the_results_folder_is_readable_and_its_digest_that_of_the_method(registry, toml):
    short = toml(SHORT)
    names = [
        choose(registry, *arguments).name
        for arguments in (
            [short],
            ["default", {"loss": "dice_topk"}, {"trainer": {"epochs": 5}}],
            [["default", short]],
            [short, {"augmentation": "light"}],
            [["demo", "large"]],
        )
    ]
    heads, digests = zip(*(name.rsplit("-", 1) for name in names), strict=True)
    assert heads == ("short", "default_dice_topk", "default+short", "short_light", "demo+large")
    assert digests[0] == digests[1] == digests[2], "these are one method"
    assert len({*digests}) == 3
    assert choose(registry, toml(SHORT.replace("5", "6"))).name != names[0]
    assert choose(registry, "large").name == "large"


@pytest.mark.parametrize(
    ("variant", "choices", "settings"),
    [
        ("default", {}, {}),
        ("demo", {}, {}),
        ("default", {"loss": "dice_topk"}, {"trainer": {"epochs": 3, "momentum": 0.9}}),
        (("demo", "large"), {"network": "residual_unet"}, {"loss": {"ce_weight": 2.0}}),
        ("default", {"preprocessor": "linear"}, {"preprocessor": {"order": 1}}),
        ("default", {}, {"planner": {"target_spacing": None}, "preprocessor": {"order": 1}}),
    ],
)
def test_a_saved_variant_finds_the_same_results(registry, tmp_path, variant, choices, settings):
    method = choose(registry, variant, choices, settings)
    assert save_variant(method, tmp_path / "saved.toml") == []
    again = choose(registry, str(tmp_path / "saved.toml"))
    assert again.name == method.name
    assert again.components.keys() == method.components.keys()
    save_variant(method, tmp_path / "saved.toml")  # the same command once more
    save_variant(again, tmp_path / "again.toml")
    said = [(tmp_path / f"{name}.toml").read_text().split("\n\n", 1) for name in ("saved", "again")]
    assert said[0][1] == said[1][1]


def test_a_saved_variant_says_which_packages_it_needs(registry, tmp_path):
    path = tmp_path / "own.toml"
    save_variant(choose(registry, "own"), path)
    assert 'requires = ["lab>=1.5"]' in path.read_text().replace("\n    ", "").replace(",\n]", "]")
    with pytest.raises(PluginError, match=r"own.toml needs 'lab>=1.5'.*pip install 'lab>=1.5'"):
        read(path)


def test_saving_replaces_no_other_variant(registry, toml):
    path = Path(toml(SHORT))
    with pytest.raises(UsageError, match="there already, with another content, and was kept"):
        save_variant(choose(registry, "demo"), path)
    assert path.read_text() == SHORT
    with pytest.raises(UsageError, match=r"must end in \.toml"):
        save_variant(choose(registry, "demo"), path.with_suffix(".json"))


def test_what_toml_cannot_hold_is_not_saved(registry, tmp_path):
    unusual = choose(
        registry, "default", {"planner": "v21_fixed_spacing"}, {"planner": {"target_spacing": None}}
    )
    with pytest.raises(SettingsError, match=r"planner\.target_spacing=null cannot be saved"):
        save_variant(unusual, tmp_path / "a.toml")
    nested = choose(registry, "default", {}, {"planner": {"schemes": {"CT": [None]}}})
    with pytest.raises(SettingsError, match="TOML has no null"):
        save_variant(nested, tmp_path / "a.toml")
    assert not (tmp_path / "a.toml").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nam = 'x'", ("no entry 'nam'", "Did you mean 'name'?", "Allowed: name, summary")),
        ("loss = 3", ("'loss' must be a text in quotes; it is 3",)),
        ("settings = [1]", ("'settings' must be a table of settings",)),
        ("settings.trainer = 4", ("'settings.trainer' must be a table of settings",)),
        ("settings.trainr.epochs = 4", ("settings.trainr", "Did you mean 'trainer'?")),
        ("settings.trainer.a = inf", ("settings.trainer", "finite")),
        ("settings.trainer.a = 2020-01-01", ("settings.trainer.a",)),
        ("name = 'a/b'", ("'name' must be letters",)),
        ("name = '..'", ("'name' must be letters",)),
        ("loss =", ("is no TOML file", "at ")),
        ("loss = 'a'\nloss = 'b'", ("is no TOML file",)),
        ("x = " + "[" * 5000, ("is no TOML file",)),
        ("loss = 3\nnetwork = 4", ("'loss'", "'network'")),
        ("requires = ['a==']", ("which is no requirement",)),
        ("loss = 'dice_cee'", ("Did you mean 'dice_ce'?",)),
        ('loss = "\\u001b[2J"', ("There is no loss",)),
        ("x = '" + "y" * 1_000_000 + "'", ("more than 1000000 bytes",)),
    ],
)
def test_a_file_that_is_no_variant_is_one_message(registry, toml, text, parts):
    with pytest.raises((UsageError, PluginError)) as error:
        choose(registry, toml(text))
    for part in parts:
        assert part in str(error.value)


def test_what_is_no_readable_file_is_refused(registry, tmp_path, toml):
    (tmp_path / "folder.toml").mkdir()
    for path in (tmp_path / "nowhere.toml", tmp_path / "folder.toml"):
        with pytest.raises(UsageError, match="cannot be read"):
            choose(registry, str(path))
    (tmp_path / "latin.toml").write_bytes(b"summary = '\xe9'")
    with pytest.raises(UsageError, match="is no TOML file"):
        choose(registry, str(tmp_path / "latin.toml"))


@pytest.mark.parametrize(
    ("text", "choices", "settings", "option"),
    [
        (f"loss = '{DICE}'", {"loss": DICE}, {}, f"--loss {DICE}"),
        (
            "settings.trainer.optimizer = 'no_such_module:Adam'",
            {},
            {"trainer": {"optimizer": "no_such_module:Adam"}},
            "--set trainer.optimizer=no_such_module:Adam",
        ),
        (
            "settings.augmentation.steps = [{name = 'no_such_module:Flow'}]",
            {},
            {"augmentation": {"steps": [{"name": "no_such_module:Flow"}]}},
            """--set 'augmentation.steps=[{"name": "no_such_module:Flow"}]'""",
        ),
    ],
)
def test_code_in_a_file_runs_only_when_the_command_line_names_it_too(
    registry, toml, text, choices, settings, option
):
    with pytest.raises(UsageError, match="nothing of it was imported") as error:
        choose(registry, toml(text))
    assert str(error.value).endswith(f"name it on the command line, too: {option}")
    choose(registry, toml(text), choices, settings)
    other = {"loss": "nnunet_builtin.losses.dice_ce:DiceCE.build"} if choices else {}
    with pytest.raises(UsageError):
        choose(registry, toml(text), other)


def test_a_saved_variant_of_own_code_warns(registry, tmp_path):
    method = choose(registry, "default", {"loss": DICE})
    assert save_variant(method, tmp_path / "a.toml") == [DICE]
    with pytest.raises(UsageError):
        choose(registry, str(tmp_path / "a.toml"))
    assert choose(registry, str(tmp_path / "a.toml"), {"loss": DICE}).name == method.name


def test_the_options_of_a_model_are_those_of_its_variants(registry):
    chosen = (["demo", "large"], {"loss": "dice_topk"}, {"trainer": {"momentum": 0.5}})
    method = choose(registry, *chosen)
    names = variants_of(method.name, registry)
    assert names == ("demo", "large")
    components = {kind: component_record(each) for kind, each in method.components.items()}
    assert options_of(names, components, None, registry) == [
        *("--variant", "demo", "--variant", "large"),
        *("--loss", "builtin/dice_topk", "--set", "trainer.momentum=0.5"),
    ]
    assert variants_of("no_such+demo-0a1b2c3d", registry) == ("default",)
    assert variants_of("demo_light-0a1b2c3d", registry) == ("demo",)


def test_a_variant_cannot_be_called_like_a_file():
    class Wrong:
        @hookimpl
        def nnunet_variants(self):
            return [Variant("short.toml")]

    with pytest.raises(PluginError, match="is a file"):
        Registry().register(Wrong(), PluginInfo("w", "x", "w", "1", "active"))


def test_an_unknown_variant_among_several_is_refused(registry):
    with pytest.raises(UnknownComponentError, match="Did you mean 'demo'"):
        choose(registry, ["default", "dmo"])


def test_the_header_of_a_command_says_what_each_variant_changed(tiny, toml, tmp_path):
    words = ("--workspace", tiny.parents[1], "--processes", 1)
    saved = tmp_path / "saved.toml"
    more = ("--variant", "demo", "--variant", toml(SHORT), "--set", "planner.max_batch_size=3")
    done = nnunet("plan", tiny, *words, *more, "--save-variant", saved)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert "variant demo: planner.max_batch_size=2" in done.stderr
    assert "command line: planner.max_batch_size=3 (was 2)" in lines
    assert f"saved variant: {saved}" in lines
    plans = json.loads(nnunet("plan", tiny, *words, "--variant", saved, "--json").stdout)
    assert plans["configurations"]["3d_fullres"]["batch_size"] <= 3
    refused = nnunet("plan", tiny, *words, "--variant", toml("loss = 3", "bad.toml"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1


def test_what_a_file_held_is_kept_beside_the_results(registry, toml, tmp_path):
    folder = tmp_path / "results"
    for variants, choices in (("demo", {}), (("demo", toml(SHORT)), {"augmentation": "light"})):
        method = choose(registry, variants, choices)
        keep_variant(method, folder)
    assert Path(toml("summary = 'changed'")).exists()
    kept = str(folder / "variant.toml")
    components = {kind: component_record(each) for kind, each in method.components.items()}
    assert options_of((kept,), components, None, registry) == ["--variant", kept]
    assert choose(registry, kept).name == method.name


def test_options_name_the_code_that_a_file_may_not(registry, toml):
    path = toml(f"loss = '{DICE}'\nsettings.loss.ce_weight = 0.5")
    method = choose(registry, path, {"loss": DICE})
    components = {kind: component_record(each) for kind, each in method.components.items()}
    options = options_of((path,), components, None, registry)
    assert options[:4] == ["--variant", path, "--loss", DICE]
    assert "loss.ce_weight=0.5" in options
