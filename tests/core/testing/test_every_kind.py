"""What every component has to keep: each check finds the component that breaks it."""

import json

import pytest

from nnunet_core.testing.doors import rows_of
from nnunet_core.testing.probe import Probe
from nnunet_core.testing.pytest_plugin import TmpPlugins
from nnunet_core.testing.references import Finder

LOSS = """
class Loss:
    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def build(self, *, batch_dice, ignore_label=None, regions=False):
        return None
"""
CONSTRUCTOR = """
class Loss:
    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        {}

    def build(self, *, batch_dice, ignore_label=None, regions=False):
        return None
"""
DOWNLOAD = "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/w', timeout=1)\n"
CAUGHT = (
    "import socket\n"
    "try:\n    socket.create_connection(('127.0.0.1', 9), timeout=1)\n"
    "except OSError:\n    pass\n"
)
#: {module: (its code, the check that fails, what it says)}.
WRONG = {
    "good": (LOSS, None, ""),
    "downloads": (DOWNLOAD + LOSS, "import_opens_no_network", "wrongs/downloads.py, line 2"),
    "tries": (CAUGHT + LOSS, "import_opens_no_network", "127.0.0.1"),
    "writes": (
        "from pathlib import Path\nPath.home().joinpath('x.txt').write_text('x')\n" + LOSS,
        "import_writes_nothing",
        "x.txt",
    ),
    "makes_folder": (
        "import os\nos.makedirs('weights')\n" + LOSS,
        "import_writes_nothing",
        "os.mkdir 'weights'",
    ),
    "starts": (
        "import subprocess\nsubprocess.run(['true'])\n" + LOSS,
        "import_writes_nothing",
        "subprocess.Popen 'true'",
    ),
    "talks": ("print('hello')\n" + LOSS, "import_writes_nothing", "prints 'hello"),
    "sets": (
        "import os\nos.environ['OMP_NUM_THREADS'] = '7'\n" + LOSS,
        "import_writes_nothing",
        "OMP_NUM_THREADS",
    ),
    "missing": ("import no_such_library\n" + LOSS, "target_resolves", "no_such_library"),
    "leaves": ("raise SystemExit(3)\n", "target_resolves", "ends the process with code 3"),
    "hangs": ("import time\ntime.sleep(60)\n" + LOSS, "target_resolves", "it hangs"),
    "lacks": ("class Loss:\n    pass\n", "target_resolves", "lacks build"),
    "untyped": (
        LOSS.replace("weight: float", "weight"),
        "settings_are_typed_json",
        "'weight' has no type",
    ),
    "mistyped": (
        LOSS.replace("= 1.0", "= 'much'"),
        "settings_are_typed_json",
        "should be a valid number",
    ),
    "infinite": (LOSS.replace("= 1.0", "= float('inf')"), "settings_are_typed_json", ""),
    "reads": (
        CONSTRUCTOR.format("open(__file__).read()"),
        "constructor_has_no_side_effects",
        "reads.py",
    ),
    "lists": (
        CONSTRUCTOR.format("__import__('os').listdir('.')"),
        "constructor_has_no_side_effects",
        "os.listdir",
    ),
    "prints": (
        CONSTRUCTOR.format("print('built')"),
        "constructor_has_no_side_effects",
        "prints 'built",
    ),
    "seeds": (
        CONSTRUCTOR.format("__import__('random').seed(0)"),
        "constructor_has_no_side_effects",
        "the random state",
    ),
    "seeds_numpy": (
        "import numpy\n" + CONSTRUCTOR.format("numpy.random.seed(0)"),
        "constructor_has_no_side_effects",
        "NumPy's random state",
    ),
    "connects": (
        CONSTRUCTOR.format("__import__('socket').getaddrinfo('localhost', 80)"),
        "constructor_has_no_side_effects",
        "socket.getaddrinfo",
    ),
    "local": (
        CONSTRUCTOR.format("self.function = lambda: 1"),
        "is_picklable",
        "pickle",
    ),
}
PLUGIN = """
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_losses():
    return [Component(name, f"wrongs.{{name}}:Loss") for name in {names}]
"""
CHECKS = (
    "import_opens_no_network",
    "import_writes_nothing",
    "target_resolves",
    "settings_are_typed_json",
    "constructor_has_no_side_effects",
    "is_picklable",
)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """Installs plugins for the tests of this file."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        installed = TmpPlugins(tmp_path_factory.mktemp("plugins"), monkeypatch)
        yield installed
        installed.forget()


@pytest.fixture(scope="module")
def rows(plugins):
    """{module: {check: row}}; every module is examined in the process of the first."""
    files = {f"wrongs/{name}.py": code for name, (code, _, _) in WRONG.items()}
    files |= {"wrongs/__init__.py": "", "wrongs/plugin.py": PLUGIN.format(names=list(WRONG))}
    finder = Finder(plugins("wrongs.plugin", files))
    finder.probe.patience = 3.0
    found = {}
    # those of which the import is the fault are not imported into this process
    here = [check for check in CHECKS if check != "import_opens_no_network"]
    for name in WRONG:
        subject = finder.subject(f"wrongs/{name}", "loss")
        found[name] = subject
    bad = {"leaves", "hangs"}
    return {
        name: {row.check: row for row in rows_of([subject], here[:2] if name in bad else CHECKS)}
        for name, subject in found.items()
    }


@pytest.mark.parametrize("name", WRONG)
def test_the_check_that_is_broken_fails(rows, name):
    _, check, message = WRONG[name]
    failed = {row.check: row.message for row in rows[name].values() if row.outcome == "failed"}
    if check is None:
        assert failed == {}
    else:
        assert check in failed, failed
        assert message in failed[check]


@pytest.mark.parametrize("name", ["writes", "makes_folder", "starts"])
def test_what_is_refused_is_not_done(rows, name):
    failed = {row.check: row.message for row in rows[name].values() if row.outcome == "failed"}
    assert "is refused" in failed["target_resolves"]


def hook_row(plugins, name, code, check="hook_module_is_light"):
    registry = plugins(f"{name}.plugin", {f"{name}/__init__.py": "", f"{name}/plugin.py": code})
    subject = Finder(registry).subject(name, "plugin")
    return next(iter(rows_of([subject], [check])))


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("light", "import json", ""),
        ("heavy", "import numpy", "imports numpy"),
        ("sleeps", "import time\ntime.sleep(1.2)", "at most 1 s"),
    ],
)
def test_a_hook_module_is_light(plugins, name, code, message):
    row = hook_row(plugins, name, code)
    assert row.outcome == ("failed" if message else "passed")
    assert message in row.message


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("broken", "import no_such_library", "no_such_library"),
        (
            "misspelt",
            "from nnunet_core import hookimpl\n@hookimpl\ndef nnunet_loses():\n    return []",
            "nnunet_loses",
        ),
    ],
)
def test_a_plugin_that_does_not_load_is_a_failed_row(plugins, name, code, message):
    row = hook_row(plugins, name, code, "plugin_is_active")
    assert row.outcome == "failed"
    assert message in row.message


def test_a_component_that_no_plugin_registers_has_no_hook_module():
    subject = Finder().subject("collections:Counter", "loss")
    (row,) = rows_of([subject], ["hook_module_is_light"])
    assert (row.outcome, row.message) == ("skipped", "It is not registered by a plugin.")


def test_components_are_examined_in_one_process(monkeypatch):
    probe, runs = Probe(), []
    run = probe._run
    monkeypatch.setattr(probe, "_run", lambda jobs: runs.append(len(jobs)) or run(jobs))
    for name in ("collections:Counter", "json:JSONDecoder"):
        probe.announce("loss", name, name, {})
    probe.of("loss", "collections:Counter", "collections:Counter", {})
    probe.of("loss", "json:JSONDecoder", "json:JSONDecoder", {})
    assert json.dumps(runs) == "[2]"
