"""What the shell offers after TAB: complete, without torch and NumPy, and nothing where nothing
fits.
"""

import os
import subprocess
import sys

import commands
import pytest

from nnunet_cli.fields import fields_of
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import parameters_of

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "numpy", "scipy", "SimpleITK"}:
            raise ImportError(f"{name} must not be imported to complete a line")
sys.meta_path.insert(0, Blocker())
from nnunet_cli.main import main
main([])
"""


def variables_of(line, shell):
    """Return the environment in which a shell asks what fits at the end of a line."""
    asked = {"_NNUNET_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        return {**asked, "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return {**asked, "_TYPER_COMPLETE_ARGS": line}


@pytest.fixture
def offered(monkeypatch):
    """Return a function: what a shell offers at the end of a line."""

    def ask(line, shell="bash"):
        for name, value in variables_of(line, shell).items():
            monkeypatch.setenv(name, value)
        done = commands.nnunet()
        assert done.stderr == ""
        return [text for text in done.stdout.splitlines() if text]

    return ask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nnunet run demo --loss dice_f", ["dice_focal"]),
        ("nnunet run demo -c 2d --fold 0 --loss builtin/dice_f", ["builtin/dice_focal"]),
        ("nnunet train demo --variant de", ["default", "demo"]),
        ("nnunet plan demo --planner v21_32", ["v21_32GB"]),
        ("nnunet plan demo --set planner.gpu", ["planner.gpu_memory_gb=8"]),
        ("nnunet plan demo --planner v21_32GB --set planner.gpu", ["planner.gpu_memory_gb=32"]),
        ("nnunet run demo --loss dice_focal --set loss.focal_g", ["loss.focal_gamma=2.0"]),
        ("nnunet run demo --set trainer.optimizer=", ["trainer.optimizer=SGD"]),
        ("nnunet run demo --set trainer.compil", ["trainer.compile=false"]),
        ("nnunet run demo --set pre", ["preprocessor.", "predictor."]),
        ("nnunet run demo --loss nothing --set loss.", []),
        ("nnunet run demo --set nothing.", []),
    ],
)
def test_values_of_options(offered, line, expected):
    assert offered(line) == expected


def test_zsh_gets_the_summaries_too(offered):
    found = "".join(offered("nnunet run demo --loss dice_f", "zsh"))
    assert '"dice_focal":"soft Dice + focal loss"' in found


@pytest.mark.parametrize(
    "line", ["nnunet run demo --loss dice_f", "nnunet run demo --set trainer."]
)
def test_values_need_neither_torch_nor_numpy(line):
    environment = {**os.environ, **variables_of(line, "bash")}
    command = [sys.executable, "-c", BLOCKED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] in {"dice_focal", "trainer.epochs=1000"}


def test_names_of_commands_and_references(offered):
    assert offered("nnunet plugins show dice_f") == ["dice_focal"]
    assert offered("nnunet plugins show --kind trainer v") == ["v2"]
    assert offered("nnunet plugins list --kind los") == ["loss"]
    assert offered("nnunet plugins check --kind predictor sliding_window_") == [
        "sliding_window_logits"
    ]
    assert offered("nnunet plugins new mine --kind ob") == ["observer"]
    assert offered("nnunet variants diff default de") == ["default", "demo"]
    assert offered("nnunet plug") == ["plugins"]
    assert {"list", "show", "new", "upgrade"} <= set(offered("nnunet plugins "))


def test_settings_read_from_the_source_are_those_of_the_constructor():
    for resolved in Registry.discover().components():
        if resolved.is_own and resolved.kind in RUN_KINDS:
            wanted = list(parameters_of(resolved, resolved.load()))
            assert sorted(fields_of(resolved.component.target)) == sorted(wanted), (
                resolved.reference
            )


def test_a_class_is_followed_through_imports_and_its_bases(tmp_path, monkeypatch):
    package = tmp_path / "read_from_source"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('nobody imports this')")
    (package / "base.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Base:\n    first: int = 1\n"
    )
    (package / "own.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from .base import Base as Other\n"
        "@dataclass(frozen=True)\nclass Own(Other):\n    second: str = 'b'\n"
        "    shared: ClassVar[int] = 3\n"
    )
    (package / "again.py").write_text("from read_from_source.own import Own\n")
    (package / "plain.py").write_text(
        "class Plain:\n    def __init__(self, one=1, *, two: int = 2): ...\n"
    )
    (package / "broken.py").write_text("class (")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert fields_of("read_from_source.again:Own") == {"first": "1", "second": "'b'"}
    assert fields_of("read_from_source.plain:Plain") == {"one": "1", "two": "2"}
    for missing in (
        "read_from_source.broken:X",
        "read_from_source.nowhere:X",
        "math:X",
        "no_such:X",
    ):
        assert fields_of(missing) == {}


def test_the_script_for_a_shell_can_be_shown():
    done = subprocess.run(
        [sys.executable, "-m", "nnunet_cli", "--show-completion", "bash"],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_NNUNET_COMPLETE=complete_bash" in done.stdout
