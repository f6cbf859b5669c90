"""Options declared once: a command that takes a group has its options, in the group's place."""

import inspect
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from nnunet_cli import options as o
from nnunet_cli.commands import run, steps
from nnunet_cli.groups import Group, grouped
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.registry.components import RUN_KINDS


def corners(
    low: Annotated[int, typer.Option(help="Low.")] = 1,
    high: Annotated[int, typer.Option(help="High.")] = 9,
) -> range:
    return range(low, high)


@grouped
def work(
    name: Annotated[str, typer.Argument()],
    *,
    corners: Annotated[range, Group(corners)],
    runtime: o.Computing,
    choices: Annotated[dict[str, str], o.components_of("planner", "stamp")],
    loud: bool = False,
) -> None:
    """Work."""
    print(name, corners, runtime.device, choices, loud)


@pytest.fixture
def runner():
    app = typer.Typer()
    app.command()(work)
    return lambda *words: CliRunner().invoke(app, list(words))


def test_a_group_stands_for_its_options_in_its_place():
    names = list(inspect.signature(work).parameters)
    computing = ["device", "precision", "workers", "threads"]
    assert names == ["name", "low", "high", *computing, "planner", "stamp", "loud"]


def test_a_command_gets_what_the_group_makes_of_its_options(runner):
    assert runner("a").output == f"a range(1, 9) {Runtime().device} {{}} False\n"
    told = runner("a", "--high", "3", "--device", "cpu", "--stamp", "mine", "--loud").output
    assert told == "a range(1, 3) cpu {'stamp': 'mine'} True\n"


def test_help_shows_the_options_of_a_group(runner):
    shown = runner("--help").output
    assert all(text in shown for text in ("Work.", "--low", "High.", "--stamp", "Stamp."))


@pytest.mark.parametrize("command", [run.run, steps.train])
def test_every_kind_that_a_run_chooses_has_an_option(command):
    names = list(inspect.signature(command).parameters)
    first = names.index(RUN_KINDS[0])
    assert names[first : first + len(RUN_KINDS)] == list(RUN_KINDS)
