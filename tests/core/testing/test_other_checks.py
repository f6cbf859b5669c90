"""Each check of commands, variants and observers finds the one that breaks it."""

import inspect
import types
from pathlib import Path
from typing import Annotated

import pytest
import typer
from kit import assert_fails, row_of

from nnunet_core import hookimpl
from nnunet_core.registry.components import Variant
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.testing import checks_of
from nnunet_core.testing.doors import rows_of
from nnunet_core.testing.references import Finder

Name = Annotated[str, typer.Argument(help="A name.")]


def good(name: Name) -> None:
    """Say hello."""
    typer.echo(name)


def undocumented(name: Name) -> None:
    typer.echo(name)


def silent(name: Name, times: int = 1) -> None:
    """Say hello."""
    typer.echo(name * times)


def complicated(name: Name, what: Annotated[int | str, typer.Option(help="What.")] = 1) -> None:
    """Say hello."""
    typer.echo(f"{name}{what}")


class _Signature(inspect.Signature):
    """Options that are written down whenever somebody asks for them."""

    @property
    def parameters(self):
        Path("options.txt").write_text("none")
        return super().parameters


def writing() -> None:
    """Say hello."""


writing.__signature__ = _Signature()


WRONG_COMMANDS = [
    ("undocumented", "command_documents_itself", "no docstring"),
    ("silent", "command_documents_itself", "no help for --times"),
    ("complicated", "command_shows_its_help", "Union"),
    ("writing", "command_shows_its_help", "writes options.txt"),
    ("complicated", "command_refuses_unknown_options", "Union"),
]


@pytest.mark.parametrize(("name", "check", "message"), WRONG_COMMANDS)
def test_a_wrong_command_fails(name, check, message):
    assert_fails(f"{__name__}:{name}", check, message, "command")


@pytest.mark.parametrize("check", [c for c in checks_of("command") if c.name[:3] == "com"])
def test_a_good_command_passes(check):
    assert row_of(f"{__name__}:good", check.name, "command").outcome == "passed"


WRONG_VARIANTS = [
    (Variant("v", "x", loss="builtin/no_such_loss"), "variant_resolves", "no_such_loss"),
    (Variant("v", "x", loss="dice_ce"), "variant_names_are_full", "loss='dice_ce'"),
    (
        Variant("v", "x", settings={"trainer": {"epoch": 3}}),
        "variant_settings_are_valid",
        "'epochs'",
    ),
    (
        Variant("v", "x", settings={"trainer": {"epochs": "3"}}),
        "variant_settings_are_valid",
        "valid integer",
    ),
    (Variant("v", "x", settings={"training": {}}), "variant_settings_are_valid", "training"),
    (
        Variant("v", "x", settings={"preprocessor": {"orders": 3}}),
        "variant_settings_are_valid",
        "orders",
    ),
    (Variant("v", "x", settings={"trainer": {3: 4}}), "variant_settings_are_valid", "JSON"),
    (Variant("v"), "variant_has_a_summary", "''"),
]


def variant_row(variant, check):
    plugin = types.SimpleNamespace(nnunet_variants=hookimpl(lambda: [variant]))
    registry = Registry.discover()
    registry.register(plugin, PluginInfo("theirs", "theirs", "theirs", "1", "active"))
    (row,) = rows_of([Finder(registry).subject("theirs/v", "variant")], [check])
    return row


@pytest.mark.parametrize(("variant", "check", "message"), WRONG_VARIANTS)
def test_a_wrong_variant_fails(variant, check, message):
    row = variant_row(variant, check)
    assert row.outcome == "failed"
    assert message in row.message


def test_a_good_variant_passes():
    variant = Variant("v", "x", loss="builtin/dice_ce", settings={"loss": {"dice_weight": 0.5}})
    for check in (c for c in checks_of("variant") if c.name.startswith("variant_")):
        assert variant_row(variant, check.name).outcome == "passed"


OBSERVER = """
import os
from pathlib import Path
from nnunet_core import hookimpl

@hookimpl
def {hook}:
    {body}
"""
EPOCH = "nnunet_epoch_finished(record, folder, metrics)"
FINISHED = "nnunet_run_finished(record, folder, summary)"
RAISES, CHANGES = "observer_raises_nothing", "observer_changes_nothing"
WRONG_OBSERVERS = [
    ("raises", EPOCH, "metrics['no_such_number']", RAISES, "KeyError"),
    ("metrics", EPOCH, "metrics['dice'].append(1)", CHANGES, "metrics is another one"),
    ("summary", FINISHED, "summary.clear()", CHANGES, "summary is another one"),
    (
        "arrays",
        "nnunet_worst_case_found(image, prediction)",
        "prediction[:] = 0",
        CHANGES,
        "prediction is another one",
    ),
    (
        "record",
        EPOCH,
        "record.components.pop('loss', None)",
        CHANGES,
        "record is another one",
    ),
    (
        "files",
        EPOCH,
        "(folder / 'run.json').write_text('mine')",
        CHANGES,
        "Files of the fold changed: run.json",
    ),
    (
        "beside",
        EPOCH,
        "(folder / 'log.txt').write_text('x')",
        CHANGES,
        "log.txt beside the files",
    ),
    (
        "environment",
        EPOCH,
        "os.environ['NNUNET_TEST'] = folder.name + str(len(os.environ))",
        CHANGES,
        "environment",
    ),
    (
        "leaves",
        EPOCH,
        "(folder / 'x').mkdir(exist_ok=True) if folder.is_dir() else exit(3)",
        "observer_failure_is_only_a_warning",
        "SystemExit",
    ),
]


@pytest.mark.parametrize(("name", "hook", "body", "check", "message"), WRONG_OBSERVERS)
def test_a_wrong_observer_fails(tmp_plugin, monkeypatch, name, hook, body, check, message):
    monkeypatch.setenv("NNUNET_TEST", "")
    code = OBSERVER.format(hook=hook, body=body)
    registry = tmp_plugin(f"sees{name}.plugin", {f"sees{name}/plugin.py": code})
    subject = Finder(registry).subject(f"sees{name}", "observer")
    (row,) = rows_of([subject], [check])
    assert row.outcome == "failed"
    assert message in row.message


def test_an_observer_is_part_of_its_plugin(tmp_plugin):
    code = OBSERVER.format(hook=EPOCH, body="(folder / 'own').mkdir(exist_ok=True)")
    registry = tmp_plugin("seesall.plugin", {"seesall/plugin.py": code})
    subjects = Finder(registry).package("seesall")
    assert [(each.kind, each.reference) for each in subjects] == [
        ("plugin", "seesall"),
        ("observer", "seesall"),
    ]
    rows = list(rows_of(subjects))
    assert {row.outcome for row in rows} == {"passed"}, rows


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("command", {check for _, check, _ in WRONG_COMMANDS}),
        ("variant", {check for _, check, _ in WRONG_VARIANTS}),
        ("observer", {check for *_, check, _ in WRONG_OBSERVERS}),
    ],
)
def test_every_check_has_a_wrong_one(kind, found):
    own = {check.name for check in checks_of(kind) if check.name.startswith(f"{kind}_")}
    assert own == found
