"""`nnunet variants list`, `show` and `diff`."""

import json

import pytest
from commands import nnunet

SHORT = """
summary = "short, with another loss"
loss = "dice_topk"

[settings.trainer]
epochs = 5
"""


def done(*words):
    outcome = nnunet("variants", *words)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


@pytest.fixture
def short(tmp_path):
    (tmp_path / "short.toml").write_text(SHORT)
    return tmp_path / "short.toml"


def test_every_variant_is_listed_with_its_package():
    rows = {row["name"]: row for row in json.loads(done("list", "--json"))}
    assert rows["default"]["components"]["planner"] == "builtin/v21"
    assert rows["demo"]["settings"]["trainer"]["epochs"] == 10
    assert rows["demo"]["distribution"] == "nnunet-core"
    assert "trainer.epochs=10" in done("list").replace("\n", "")


def test_a_variant_is_shown_whole(short):
    told = done("show", "demo").splitlines()
    assert told[0] == "variant demo"
    assert "  trainer.epochs=10" in told
    rows = {line.split()[0]: line for line in told if line.endswith("as default")}
    assert len(rows) == 8
    told = done("show", short).splitlines()
    assert told[:3] == ["variant short", f"from    {short}", "summary short, with another loss"]
    (loss,) = (line for line in told if line.startswith("  loss "))
    assert "builtin/dice_topk" in loss
    assert not loss.endswith("as default")
    content = json.loads(done("show", short, "--json"))
    assert (content["name"], content["settings"]) == ("short", {"trainer": {"epochs": 5}})
    assert {row["kind"] for row in content["components"]} >= {"planner", "preprocessor", "loss"}


def test_a_comparison_has_components_settings_and_defaults(short):
    found = json.loads(done("diff", "demo", short, "--json"))
    assert found["components"] == {"loss": ["builtin/dice_ce", "builtin/dice_topk"]}
    settings = found["settings"]
    assert settings["trainer.epochs"] == [value(10, True), value(5, True)]
    assert settings["trainer.iterations_per_epoch"] == [value(20, True), value(250, False)]
    assert settings["loss.top_k"] == [value(None, False), value(0.1, True)]
    assert "trainer.momentum" not in settings
    assert found["results"][0] == "demo"
    assert found["results"][1].startswith("short-")
    table = done("diff", "demo", short)
    for part in ("250  (default)", "builtin/dice_topk", "results folder"):
        assert part in table


def value(given, chosen):
    return {"value": given, "chosen": chosen}


def test_another_class_has_other_settings(tmp_path):
    (tmp_path / "residual.toml").write_text('network = "residual_unet"\npreprocessor = "linear"\n')
    found = json.loads(done("diff", "default", tmp_path / "residual.toml", "--json"))
    assert found["components"]["preprocessor"] == [None, "builtin/linear"]
    left, right = found["settings"]["network.blocks"]
    assert left is None
    assert right["chosen"] is False
    assert "no such setting" in done("diff", "default", tmp_path / "residual.toml")


def test_equal_methods_are_said_to_be_equal(short, tmp_path):
    (tmp_path / "same.toml").write_text(SHORT)
    assert "are the same method" in done("diff", short, tmp_path / "same.toml")


@pytest.mark.parametrize("words", [("show", "dmo"), ("diff", "demo", "nowhere.toml")])
def test_what_is_not_there_is_one_message(words):
    outcome = nnunet("variants", *words)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.count("\n") == 1
