"""The tutorial of the first plugin and the page on publishing: what they say is typed, in an empty
folder, and what they show is printed.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import types
import venv
from pathlib import Path

import pytest

from nnunet_builtin.authoring.answers import Answers
from nnunet_builtin.authoring.rendering import rendered
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.registry.settings import build

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r'```(\w+)(?: title="([^"]+)")?\n(.*?)```', re.DOTALL)
#: What makes the training of the page shorter still.
SHORT = (
    "--workers 0 --set trainer.epochs=1 --set trainer.iterations_per_epoch=1 "
    "--set trainer.validation_iterations=1 --set planner.base_features=4 "
    '--set planner.configurations=[\\"3d_fullres\\"] --set predictor.mirroring=false'
)


def blocks_of(page):
    """Return (language, title, text) of the blocks of a page, in their order."""
    return BLOCK.findall((ROOT / "docs" / page).read_text())


def patched(text, diff):
    """Return a text after the parts of a diff, which `...` divides; each must fit once."""
    for part in diff.split("...\n"):
        lines = [(line[:1], line[1:]) for line in part.splitlines(keepends=True)]
        old = "".join(rest for sign, rest in lines if sign != "+")
        assert text.count(old) == 1, old
        text = text.replace(old, "".join(rest for sign, rest in lines if sign != "-"))
    return text


def plain(line):
    """Return a line without what differs from one run to the next: numbers, frames of tables."""
    return " ".join(re.sub(r"\d+(\.\d+)*|nan", "0", re.sub("[─-╿]", "", line)).split())


class Terminal:
    """A shell in an empty folder, with an environment that packages are installed into."""

    def __init__(self, folder):
        self.folder = folder / "empty"
        self.folder.mkdir()
        venv.create(folder / "environment", symlinks=True)
        self.python = folder / "environment" / "bin" / "python"
        paths = [ROOT, ROOT / "plugins", *(path for path in sys.path if "site-packages" in path)]
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "NNUNET_WORKSPACE"},
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "COLUMNS": "160",
            "OMP_NUM_THREADS": "1",
        }

    def type(self, line):
        """Run a line of a page; return what it prints."""
        program, *words = shlex.split(line)
        start = {
            "nnunet": ["-m", "nnunet_cli"],
            "pip": ["-m", "pip", "-q"],
        }[program]
        if program == "pip":
            words += ["--no-deps", "--no-build-isolation"]
        if words[0] == "run":
            words += shlex.split(SHORT)
        command = [str(self.python), *start, *words]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.mark.slow
def test_the_tutorial_can_be_typed_and_prints_what_it_shows(tmp_path):
    terminal, printed, trained = Terminal(tmp_path), "", 0
    for language, title, text in blocks_of("tutorial/first-plugin.md"):
        if language == "bash":
            lines = text.splitlines()
            if lines[0].startswith("nnunet run"):
                trained += 1
                if trained > 1:  # the same with another value
                    continue
            printed = "\n".join(terminal.type(line) for line in lines)
        elif language == "text":
            known = set(map(plain, printed.splitlines()))
            shown = [line for line in text.splitlines() if line != "..." and plain(line)]
            assert [line for line in shown if plain(line) not in known] == [], printed
        elif language == "diff":
            path = terminal.folder / title
            path.write_text(patched(path.read_text(), text))
        elif language == "json":
            (record,) = terminal.folder.glob(
                "nnunet_workspace/results/*/demo_topk-variant-*/*/*/run.json"
            )
            found = json.loads(record.read_text())["components"]["loss"]
            expected = json.loads("{" + text + "}")["loss"]
            assert {key: found[key] for key in expected} == expected
    assert trained == 2


def test_the_file_that_the_tutorial_changes_is_what_is_generated():
    ((title, diff),) = (
        (title, text)
        for language, title, text in blocks_of("tutorial/first-plugin.md")
        if language == "diff"
    )
    texts = rendered(Answers(name="topk-variant", kinds=("loss",)))
    compile(patched(texts[title.removeprefix("topk-variant/")], diff), title, "exec")


def test_the_variant_of_the_page_on_publishing_can_be_resolved():
    ((title, code),) = (
        (title, text)
        for language, title, text in blocks_of("how-to/publish-a-variant.md")
        if language == "python"
    )
    name = "nnunet-my-study"
    texts = rendered(Answers(name=name, kinds=("variant",)))
    assert title.removeprefix(f"{name}/") in texts
    module = types.ModuleType("nnunet_my_study.plugin")
    exec(compile(code, title, "exec"), vars(module))
    registry = Registry.discover()
    registry.register(module, PluginInfo(name, module.__name__, name, "0.1.0", "active"))
    _, variant = registry.variant(name)
    for kind, reference in variant.choices().items():
        build(registry.resolve(kind, reference).with_settings(variant.settings.get(kind, {})))
