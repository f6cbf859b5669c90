"""Plugins that are broken, slow, hang, take names or ask for what is not there: each is reported,
and nothing that does not ask for it is disturbed.
"""

import json
import re

import fake_plugins
import pytest
from strangers import nnunet, on_path

from nnunet_core import __version__
from nnunet_core.errors import PluginError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.needs import check_needs

SLEEP = 0.7


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed distributions, one of every kind of trouble."""
    folder = tmp_path_factory.mktemp("site")
    fake_plugins.put_healthy(folder, 10)
    fake_plugins.put_troubled(folder, SLEEP)
    return folder


@pytest.fixture(scope="module")
def listed(site):
    return nnunet(site, "plugins", "list").stdout.splitlines()


@pytest.fixture(scope="module")
def diagnosis(site, tmp_path_factory):
    words = ("--json", "--import-limit", "4", "--workspace", tmp_path_factory.mktemp("ws"))
    return json.loads(nnunet(site, "doctor", *words, code=1).stdout)


BROKEN = {
    "broken": "broken.*No module named 'no_such_module_anywhere'",
    "twin": "twin_a 1.0 and twin_b 1.0 both register a plugin named 'twin'",
    "misspelt": "unknown hook 'nnunet_loses'.*Did you mean 'nnunet_losses'",
}
NOTES = {
    "sleepy": r"'sleepy' took \d\.\d s to import.*--no-plugin sleepy",
    "rivals": "'rival' is of several plugins; write 'rival_a/rival' or 'rival_b/rival'",
    "shadow": "'dice_ce' is always 'builtin/dice_ce'; of other plugins: 'shadow/dice_ce'",
}
SEEN_BY_DOCTOR = {
    "needy": "'needy/wanting' needs 'no-such-distribution>=2', which is not installed. Run: pip",
    "future": r"'future/later' needs API 99 of nnunet-core.*pip install --upgrade nnunet-core",
}
PROBLEMS = BROKEN | {
    "hanging": "'hanging/stuck': its import did not end within 4 s",
    "dying": r"'dying/deadly': its import ended the process \(exit code 7\)",
    "missing": "missing-thing is not installed; clashing 1.0 asks.*pip install 'missing-thing'",
    "conflict": r"pluggy \d\S* is installed; clashing 1.0 asks for 'pluggy<1', but content 1.0",
}


@pytest.mark.parametrize("pattern", [*BROKEN.values(), *NOTES.values()])
def test_plugins_list_reports_what_hook_modules_show(listed, pattern):
    assert [line for line in listed if re.search(pattern, line)]


def test_plugins_list_imports_no_target(listed):
    """Those of `hanging` and `dying` would stop it."""
    for name in ("stuck", "deadly", "healthy009"):
        assert [line for line in listed if name in line]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [*NOTES.values(), *SEEN_BY_DOCTOR.values()])
def test_doctor_notes_what_can_be_lived_with(diagnosis, pattern):
    assert [text for text in diagnosis["notes"] if re.search(pattern, text)]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PROBLEMS.values())
def test_doctor_reports_what_is_wrong(diagnosis, pattern):
    assert [text for text in diagnosis["problems"] if re.search(pattern, text)]


@pytest.mark.slow
def test_doctor_blames_nobody_else(diagnosis):
    assert len(diagnosis["problems"]) == len(PROBLEMS), diagnosis["problems"]
    rows = {row["name"]: row for row in diagnosis["plugins"]}
    assert rows["healthy009"]["component_seconds"] is not None, "tried after `hanging` and `dying`"


@pytest.mark.slow
def test_doctor_says_how_long_imports_take(diagnosis):
    rows = {row["name"]: row for row in diagnosis["plugins"]}
    assert rows["sleepy"]["import_seconds"] >= SLEEP
    assert rows["builtin"]["import_seconds"] < SLEEP
    assert rows["hanging"]["component_seconds"] >= 4
    assert rows["builtin"]["component_seconds"] is None, "our own are not tried"


def test_built_in_components_are_not_disturbed(site, tiny):
    """A whole run beside such plugins: tests/packaging/test_authors_combined.py."""
    where = ("--workspace", tiny.parents[1], "--processes", 1)
    plans = [json.loads(nnunet(f, "plan", tiny, *where, "--json").stdout) for f in (site, None)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("needy/wanting", "pip install 'no-such-distribution>=2'"),
        ("future/later", "needs API 99"),
        ("rival", "Write one of these full names"),
        ("broken/broken_0", "which is broken"),
    ],
)
def test_what_cannot_be_used_is_said_before_any_work(site, tiny, loss, message):
    workspace = tiny.parents[1]
    code = {"rival": 2}.get(loss, 1)
    done = nnunet(site, "run", tiny, "--workspace", workspace, "--loss", loss, code=code)
    assert message in done.stderr
    for name in ("broken", "twin", "misspelt"):
        assert f"warning: the plugin '{name}' is broken and takes no part" in done.stderr
    assert "warning: the plugin 'sleepy' took" in done.stderr
    (told,) = (line for line in done.stderr.splitlines() if line.startswith("plugins: "))
    assert told.startswith(f"plugins: nnunet-core {__version__}, ")
    assert "healthy009 (healthy009 1.0)" in told
    assert "builtin" not in told
    assert not (workspace / "preprocessed").exists()


def test_every_need_of_a_run_is_said_at_once(site, tiny):
    with on_path(site):
        registry = Registry.discover()
        named = [registry.resolve("loss", name) for name in ("wanting", "later", "dice_ce")]
        with pytest.raises(PluginError) as error:
            check_needs(named)
    assert len(str(error.value).splitlines()) == 2
