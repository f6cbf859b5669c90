"""The page of v1's trainers: every option that it names exists and takes the value; its losses are
those that are checked.
"""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
from v1_losses import V1

from nnunet_cli.app import commands
from nnunet_cli.options import parse_assignments
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import full_settings
from nnunet_core.stages.method import choose

ROOT = Path(__file__).parent.parent.parent
LINES = (ROOT / "docs" / "reference" / "v1-trainers.md").read_text().splitlines()


def rows():
    """Return {trainers: (words of the options, remark)} of every row of every table."""
    cells = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in LINES
        if line.startswith("| `")
    ]
    assert {len(row) for row in cells} == {3}
    return {names: (shlex.split(options.strip("`")), remark) for names, options, remark in cells}


def options_of_run():
    module, _, function = commands(Registry.discover())["run"][0].partition(":")
    app = typer.Typer()
    app.command()(getattr(importlib.import_module(module), function))
    return {option for parameter in typer.main.get_command(app).params for option in parameter.opts}


def method_of(words):
    """Return the method that the options choose."""
    pairs = list(zip(words[::2], words[1::2], strict=True))
    assert {flag for flag, _ in pairs} <= options_of_run()
    choices = {
        flag.removeprefix("--"): value
        for flag, value in pairs
        if flag.removeprefix("--") in RUN_KINDS
    }
    settings = parse_assignments([value for flag, value in pairs if flag == "--set"])
    return choose(Registry.discover(), choices=choices, settings=settings)


@pytest.mark.parametrize("names", rows())
def test_every_row_has_options_that_work_or_says_that_there_are_none(names):
    words, remark = rows()[names]
    assert (not words) == remark.startswith("not covered")
    method = method_of([] if words == ["none:", "the", "defaults"] else words)
    for kind in ("planner", "network", "loss", "augmentation", "trainer"):
        method.build(kind)


def test_the_losses_of_the_page_are_those_that_are_compared_with_v1():
    page = {re.findall("`(.+?)`", names)[0]: words for names, (words, _) in rows().items()}
    registry = Registry.discover()
    for trainer, component, changes, *_ in V1:
        name = (
            trainer
            if trainer == "V2"
            else f"V2{trainer}"
            if trainer.startswith("BraTS")
            else f"V2_{trainer}"
        )
        words = [] if page[name][:1] == ["none:"] else page[name]
        chosen = full_settings(method_of(words).components["loss"])
        expected = {**full_settings(registry.resolve("loss", component)), **changes}
        assert {**chosen, "batch_dice": None} == expected, trainer
