"""`nnunet plugins check`: tables, JSON, exit codes."""

import json
import re

import pytest
from commands import nnunet

PLUGIN = """
from nnunet_core import Component, Variant, hookimpl

@hookimpl
def nnunet_postprocessors():
    return [Component("good", "tmpchecked.parts:Good"), Component("bad", "tmpchecked.parts:Bad")]

@hookimpl
def nnunet_variants():
    return [Variant("both", "one line", postprocessor="tmp-checked/good")]
"""
PARTS = """
class Good:
    def fit(self, pairs, labels):
        return {}

    def apply(self, segmentation, geometry, state):
        return segmentation.copy()

class Bad(Good):
    def __init__(self, what=1):
        print("made")
"""


@pytest.fixture
def checked(tmp_plugin):
    """A plugin with a good and a bad postprocessor."""
    files = {
        "tmpchecked/__init__.py": "",
        "tmpchecked/plugin.py": PLUGIN,
        "tmpchecked/parts.py": PARTS,
    }
    return tmp_plugin("tmpchecked.plugin", files, name="tmp-checked")


def test_a_good_component_has_a_table_and_exit_code_0(checked):
    done = nnunet("plugins", "check", "good")
    assert done.returncode == 0
    assert "postprocessor tmp-checked/good" in done.stdout
    assert "settings_are_typed_json" in done.stdout
    assert re.search(r"\n\d+ checks: \d+ passed, 1 skipped$", done.stdout.rstrip())


def test_what_fails_is_told_with_exit_code_1(checked):
    done = nnunet("plugins", "check", "tmpchecked.parts:Bad")
    assert done.returncode == 1
    assert "failed  settings_are_typed_json: The setting 'what' has no type." in done.stdout
    assert "failed  constructor_has_no_side_effects: " in done.stdout
    assert "skipped  hook_module_is_light: It is not registered by a plugin." in done.stdout


@pytest.mark.parametrize("name", ["tmp-checked", "tmp_checked"])
def test_a_package_is_checked_whole(checked, name):
    done = nnunet("plugins", "check", name, "--json")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert list(dict.fromkeys((row["kind"], row["reference"]) for row in rows)) == [
        ("plugin", "tmp-checked"),
        ("postprocessor", "tmp-checked/good"),
        ("postprocessor", "tmp-checked/bad"),
        ("variant", "tmp-checked/both"),
    ]
    failed = {(row["reference"], row["check"]) for row in rows if row["outcome"] == "failed"}
    assert failed == {
        ("tmp-checked/bad", "settings_are_typed_json"),
        ("tmp-checked/bad", "constructor_has_no_side_effects"),
    }
    assert set(rows[0]) == {"check", "kind", "reference", "outcome", "message", "seconds"}
    table = nnunet("plugins", "check", name, "--check", "settings_are_typed_json")
    assert "│ postprocessor │ tmp-checked/bad " in table.stdout
    assert "postprocessor tmp-checked/bad: settings_are_typed_json" in table.stdout


def test_a_failure_can_be_expected_with_a_reason(checked):
    reason = "settings_are_typed_json=it takes anything"
    chosen = ("--check", "settings_are_typed_json", "--expect", reason)
    done = nnunet("plugins", "check", "bad", *chosen)
    assert done.returncode == 0, done.stdout
    assert "expected  settings_are_typed_json: it takes anything (The setting" in done.stdout
    done = nnunet("plugins", "check", "good", *chosen)
    assert done.returncode == 1
    assert "It passes, but is expected to fail: it takes anything" in done.stdout


def test_settings_are_of_the_component_that_is_checked():
    chosen = ("--check", "planner_patch_fits_the_network", "--set")
    done = nnunet("plugins", "check", "v21", *chosen, "planner.base_features=8")
    assert done.returncode == 0, done.stdout + done.stderr
    done = nnunet("plugins", "check", "v21", *chosen, "planner.no_such=8")
    assert done.returncode == 1
    assert "no setting 'no_such'" in done.stdout


def test_a_plugin_that_does_not_load_fails(tmp_plugin):
    tmp_plugin("tmpbroken.plugin", {"tmpbroken/plugin.py": "import no_such_library"})
    done = nnunet("plugins", "check", "tmpbroken")
    assert done.returncode == 1
    assert "plugin_is_active: ModuleNotFoundError: No module named 'no_such_lib" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dice_cf",), "Did you mean 'dice_ce'"),
        (("v2",), "Say which one (--kind)"),
        (("dice_ce", "--kind", "los"), "Did you mean 'loss'"),
        (("dice_ce", "--check", "is_pickable"), "Did you mean 'is_picklable'"),
        (("dice_ce", "--expect", "is_picklable"), "CHECK=REASON"),
        (("dice_ce", "--with", "net=mine"), "KIND=REF"),
        (("dice_ce", "--kind", "loss", "--set", "trainer.epochs=1"), "settings of trainer"),
        (("no_such_module:Loss", "--kind", "loss"), "no_such_module"),
    ],
)
def test_wrong_usage_is_one_message(arguments, message):
    done = nnunet("plugins", "check", *arguments)
    assert done.returncode == (1 if "no_such_module" in message else 2)
    assert message in done.stderr
