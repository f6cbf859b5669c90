"""Packages as `plugins new` makes them: whole, of valid names, and passing their own tests, for
every kind.
"""

import json
import os
import subprocess
import sys
from collections import Counter

import commands
import pytest
import tomllib
from strangers import on_path

from nnunet_builtin.authoring.answers import FILE, Answers, checked_kinds
from nnunet_builtin.authoring.kinds import KINDS
from nnunet_builtin.authoring.packages import make
from nnunet_builtin.authoring.rendering import rendered, window
from nnunet_core import API
from nnunet_core.registry import components
from nnunet_core.registry.discovery import Registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME, MODULE = "own-method", "own_method"


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Return a package with a part of every kind, and the folder that its wheel is installed in."""
    folder = tmp_path_factory.mktemp("everything")
    source, target = folder / NAME, folder / "installed"
    make(source, Answers(name=NAME, kinds=tuple(KINDS)))
    pip = [sys.executable, "-m", "pip", "--quiet"]
    where = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *where, "-w", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("own_method-0.1.0-*.whl")
    subprocess.run([*pip, "install", *where, "--target", str(target), str(wheel)], check=True)
    return source, target


def test_every_kind_of_component_has_a_template():
    made_otherwise = {"dataset"}  # a demonstration, see the plugin `demo`
    assert set(KINDS) == {*components.KINDS, "variant", "observer"} - made_otherwise


@pytest.mark.slow
def test_a_wheel_of_every_kind_installs_and_registers(everything):
    _, target = everything
    with on_path(target):
        registry = Registry.discover()
        info = next(info for info in registry.plugins() if info.name == NAME)
        assert (info.status, info.version) == ("active", "0.1.0")
        found = [c.kind for c in registry.components() if c.reference == f"{NAME}/{NAME}"]
        assert set(found) == set(KINDS) - {"variant", "observer"}
        variant = registry.variant(f"{NAME}/{NAME}")[1]
        assert variant.choices() == dict.fromkeys(components.RUN_KINDS, f"{NAME}/{NAME}")
        assert {c.component.api for c in registry.components() if NAME in c.reference} == {API}
        assert NAME in registry.hooks.observers()


def test_its_code_is_as_linters_want_it(tmp_path):
    ruff = pytest.importorskip("ruff")
    make(tmp_path / NAME, Answers(name=NAME, kinds=tuple(KINDS)))
    for words in (["check", "--select", "E,F,I,B,UP", "--ignore", "B905"], ["format", "--check"]):
        command = [ruff.find_ruff_bin(), *words, "--isolated", "--line-length", "100", "--no-cache"]
        done = subprocess.run(
            [*command, NAME], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_its_own_tests_pass_for_every_kind(everything):
    source, target = everything
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-n0"]
    done = subprocess.run(
        [*command, "--junitxml", str(target / "junit.xml")],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    passed = Counter(
        kind
        for line in (target / "junit.xml").read_text().split("<testcase ")
        for kind in KINDS
        if f"[{kind}-" in line and "<skipped" not in line
    )
    assert set(passed) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_of_one_kind(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = commands.nnunet("plugins", "new", f"only-{kind.replace('_', '-')}", "--kind", kind)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    module = folder.name.replace("-", "_")
    for path in folder.rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
        assert not [line for line in path.read_text().splitlines() if len(line) > 100], path
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["nnunet_plugins"] == {folder.name: f"{module}.plugin"}
    assert project["project"]["dependencies"] == ["nnunet-core>=0.1,<0.3"]
    assert {path.name for path in folder.iterdir()} == {
        *(".github", ".gitignore", FILE, "CONTRACT.md", "README.md"),
        *("pyproject.toml", "src", "tests"),
    }
    assert f"## {kind.replace('_', ' ').capitalize()}\n" in (folder / "CONTRACT.md").read_text()
    code = sorted(p.name for p in (folder / "src" / module).iterdir())
    assert code == sorted({"__init__.py", "plugin.py", f"{kind}.py"} - {"variant.py"})


def test_what_it_prints_is_the_way_on(tmp_path):
    folder = tmp_path / "elsewhere"
    done = commands.nnunet("plugins", "new", "topk-variant", "--kind", "loss", "--output", folder)
    for line in (f'pip install -e "{folder}[test]"', f"pytest {folder}", "check topk-variant"):
        assert line in done.stdout
    made = [p for p in folder.rglob("*") if p.is_file() and p.name != FILE]
    assert sorted(map(str, made)) == [
        line.strip() for line in done.stdout.splitlines() if line.startswith("  /")
    ]


def test_kinds_are_written_with_either_sign_and_come_in_the_order_of_a_run():
    assert checked_kinds(["variant", "image-format", "loss", "image_format"]) == (
        "loss",
        "image_format",
        "variant",
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["Topk"], "small letters"),
        (["top k"], "small letters"),
        (["../topk"], "small letters"),
        (["-"], "small letters"),
        (["a" * 41], "at most 40"),
        (["class"], "no word of Python"),
        (["torch"], "module 'torch' is installed"),
        (["json"], "module 'json' is installed"),
        (["builtin"], "A plugin 'builtin' is installed (nnunet-core)"),
        (["mine", "--kind", "los"], "Did you mean 'loss'?"),
    ],
)
def test_wrong_names_and_kinds_make_nothing(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = commands.nnunet("plugins", "new", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine-own").mkdir()
    done = commands.nnunet("plugins", "new", "mine-own")
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert not list((tmp_path / "mine-own").iterdir())


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    from nnunet_core.runtime import files

    written = []

    def fail_late(path, text):
        written.append(path)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(files, "write_text", fail_late)
    monkeypatch.chdir(tmp_path)
    done = commands.nnunet("plugins", "new", "mine-own")
    assert done.returncode == 1
    assert len(written) == 4
    assert not list(tmp_path.iterdir())


def test_equal_answers_make_equal_packages_and_the_answers_are_kept(tmp_path):
    answers = Answers(name=NAME, kinds=("loss", "variant"))
    make(tmp_path / "one", answers)
    kept = json.loads((tmp_path / "one" / FILE).read_text())
    assert kept["answers"] == {"name": NAME, "kinds": ["loss", "variant"]}
    assert kept["files"] == rendered(answers)


@pytest.mark.parametrize(
    ("version", "allowed"),
    [("0.1.0", ">=0.1,<0.3"), ("0.9.2.dev1", ">=0.9,<0.11"), ("2.4.1", ">=2.4,<4")],
)
def test_the_window_of_versions(version, allowed):
    assert window(version) == allowed
