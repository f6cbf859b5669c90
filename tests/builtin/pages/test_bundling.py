"""The bundles: pinned, with licences, and a clear message where they cannot be had."""

import json
import os
import subprocess
import sys

import pytest

from nnunet_builtin.pages import bundling

LOCK = json.loads((bundling.ROOM / "package-lock.json").read_text())["packages"]


def test_every_package_is_pinned_by_a_digest_and_by_no_address():
    wanted = json.loads((bundling.ROOM / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        assert LOCK[f"node_modules/{name}"]["version"] == version
    for place, package in LOCK.items():
        assert not place or package["integrity"].startswith("sha512-")
        assert "resolved" not in package


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """No bundles, and a folder of programs that comes first."""
    monkeypatch.setattr(bundling, "BUNDLES", tmp_path / "bundles")
    programs = tmp_path / "programs"
    programs.mkdir()
    return programs


def _npm(programs, monkeypatch, script):
    (programs / "npm").write_text(f"#!{sys.executable}\n{script}")
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


def test_without_npm_the_message_says_what_to_install(empty, monkeypatch):
    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(bundling.BundlingError, match=r"Install Node\.js.*then run: python -m"):
        bundling.fetch()


def test_what_npm_says_is_passed_on_and_nothing_is_kept(empty, monkeypatch):
    _npm(empty, monkeypatch, "import sys; sys.exit('npm error EINTEGRITY')")
    with pytest.raises(bundling.BundlingError, match=r"(?s)exit code 1.*EINTEGRITY.*run again"):
        bundling.fetch()
    assert not bundling.are_current()


MODULES = """
import json, pathlib
for place, package in json.load(open("package-lock.json"))["packages"].items():
    folder = pathlib.Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    if place and not place.endswith("niivue/niivue") and not {LACKS}:
        (folder / "LICENSE.md").write_text("licence of " + place)
for name in {FILES}:
    path = pathlib.Path("node_modules") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("code")
"""


def _modules(lacks="False"):
    return MODULES.replace("{LACKS}", lacks).replace(
        "{FILES}", repr(list(bundling._FILES.values()))
    )


def test_bundles_are_kept_with_the_licence_of_every_package(empty, monkeypatch):
    _npm(empty, monkeypatch, _modules())
    bundling.fetch()
    assert bundling.are_current()
    licenses = (bundling.BUNDLES / bundling.LICENSES).read_text()
    for place, package in LOCK.items():
        name = place.removeprefix("node_modules/")
        if place and not package.get("optional"):
            assert f"{name} {package['version']} (" in licenses
    assert "Copyright (c) 2021, Niivue" in licenses
    (bundling.BUNDLES / "package-lock.json").write_text("{}")  # of an older version
    assert not bundling.are_current()


def test_a_package_without_a_licence_is_not_taken(empty, monkeypatch):
    _npm(empty, monkeypatch, _modules("place.endswith('fflate')"))
    with pytest.raises(bundling.BundlingError, match=r"fflate .* holds no licence"):
        bundling.fetch()
    assert not bundling.are_current()


def test_as_a_command_it_ends_with_one_message(tmp_path):
    copy = tmp_path / "pages"
    copy.mkdir()
    for name in ("bundling.py", "package.json", "package-lock.json", ".npmrc"):
        (copy / name).write_bytes((bundling.ROOM / name).read_bytes())
    done = subprocess.run(
        [sys.executable, copy / "bundling.py"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: npm, which")
    assert "Traceback" not in done.stderr
