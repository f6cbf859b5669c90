"""Every package under plugins/ is built to a wheel, installed into an environment that has nothing
else of this repository than the core's wheel, active there, and passes its own tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import fake_plugins
import pytest
import tomllib
from tiny_dataset import make_tiny

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
_LEFT_OUT = (".git", ".venv", "*.egg-info", "build", "dist", "nnunet_workspace", ".*_cache")
#: Folders of tests that run with those of the repository, and with its helpers.
_TESTPATHS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"][
    "testpaths"
]
_IGNORED = shutil.ignore_patterns(*_LEFT_OUT, "__pycache__")


def run(*command, cwd=None, **variables):
    """Run a command; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    words = list(map(str, command))
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def build(source, folder):
    """Build a wheel of a copy of the sources, with what is installed; return its path."""
    copy = folder / "source"
    shutil.copytree(source, copy, ignore=_IGNORED)
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    run(sys.executable, "-m", "pip", "wheel", *offline, "-w", folder, copy)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def core(tmp_path_factory):
    """The wheel of the core."""
    return build(ROOT, tmp_path_factory.mktemp("core"))


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """A folder of links to everything that is installed, but for packages of this repository."""
    folder = tmp_path_factory.mktemp("libraries")
    ours = ("nnunet", "__editable__", "_nnunet")
    for place in (Path(path) for path in sys.path if Path(path).name.endswith("-packages")):
        for found in place.iterdir():
            link, name = folder / found.name, found.name.lower()
            if found.suffix != ".pth" and not name.startswith(ours) and not link.exists():
                link.symlink_to(found)
    return folder


def new_environment(folder, libraries, *wheels):
    """Return the python of a fresh virtual environment with these wheels."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"{libraries}\n")
    python = folder / "bin" / "python"
    offline = ("--no-deps", "--no-index", "--no-compile", "--quiet")
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, *wheels)
    return python


def check_contents(wheel, source, project):
    """The wheel holds what lies in src/ and nothing else, its entry points and its licence."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entries, said = (
            archive.read(next(n for n in names if n.endswith(f".dist-info/{file}"))).decode()
            for file in ("entry_points.txt", "METADATA")
        )
    files = [path for path in (source / "src").rglob("*") if path.is_file()]
    lying = {path.relative_to(source / "src").as_posix() for path in files}
    built = ("__pycache__", ".egg-info")
    assert {name for name in names if ".dist-info/" not in name} == {
        name for name in lying if not any(part in name for part in built)
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    for name, target in project["entry-points"]["nnunet_plugins"].items():
        assert f"{name} = {target}" in entries.splitlines()
    assert f"Version: {project['version']}" in said.splitlines()
    assert re.search(r"^Requires-Dist: nnunet-core\b", said, re.MULTILINE)
    assert "\n# " in said, "the README is the description"


def check_active(python, folder, project):
    """`nnunet plugins list` has its plugins, nobody's but the core's beside them, and none is
    broken.
    """
    listed = json.loads(run(python.with_name("nnunet"), "plugins", "list", "--json", cwd=folder))
    rows = {row["name"]: row for row in listed["plugins"]}
    assert {row["status"] for row in rows.values()} == {"active"}, rows
    assert {row["distribution"] for row in rows.values()} == {"nnunet-core", project["name"]}
    for name in project["entry-points"]["nnunet_plugins"]:
        assert rows[name]["version"] == project["version"]


def check_tests(python, folder, source):
    """Its tests pass; the slow ones of packages whose tests are among those of the repository run
    there.
    """
    ours = f"plugins/{source.name}/tests" in _TESTPATHS
    helpers = ROOT / "tests" / "builders" if ours else ""
    options = folder / "pytest.ini"
    options.write_text(f"[pytest]\nmarkers =\n    slow\n    shared\npythonpath = {helpers}\n")
    chosen = "not slow and not shared" if ours else "not shared"
    command = ("pytest", "-q", "-m", chosen, "-p", "no:cacheprovider", "-p", "no:xdist")
    drawing = {"NNUNET_DISABLE_PLUGINS": "pictures"}  # more than half of a small training
    run(python, "-m", *command, "-c", options, source / "tests", cwd=folder, **drawing)


@pytest.mark.parametrize("source", PACKAGES, ids=lambda path: path.name)
def test_it_is_built_installed_active_and_passes_its_tests(source, core, libraries, tmp_path):
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    wheel = build(source, tmp_path)
    check_contents(wheel, source, project)
    python = new_environment(tmp_path / "environment", libraries, core, wheel)
    module = next(iter(project["entry-points"]["nnunet_plugins"].values())).partition(".")[0]
    modules = f"nnunet_core, nnunet_builtin, {module}"
    code = f"import {modules}; print({modules})"
    assert run(python, "-c", code, cwd=tmp_path).count(f"{tmp_path / 'environment'}/") == 3
    check_active(python, tmp_path, project)
    check_tests(python, tmp_path, source)


SHORT = (
    *("trainer.epochs=1", "trainer.iterations_per_epoch=2", "trainer.validation_iterations=1"),
    *("planner.base_features=4", "planner.max_batch_size=2", "predictor.mirroring=false"),
)
FIXED = ("--folds", "0", "--configuration", "3d_fullres", "--workers", "0", "--processes", "1")


def trained(python, folder):
    """Train a fold of the published variant in a folder of its own; return its run.json."""
    dataset = make_tiny(folder / "ws" / "raw" / "Dataset001_Tiny")
    settings = [word for setting in SHORT for word in ("--set", setting)]
    where = ("--workspace", folder / "ws", "--threads", "1", "--device", "cpu")
    nnunet = python.with_name("nnunet")
    run(
        nnunet,
        "train",
        dataset,
        "--variant",
        "unified_focal",
        *settings,
        *FIXED,
        *where,
        cwd=folder,
    )
    (record,) = folder.glob("ws/results/*/*/3d_fullres/fold_0/run.json")
    return {"folder": record.parents[2].name, **json.loads(record.read_text())}


def test_a_published_variant_is_reproduced_in_another_environment(core, libraries, tmp_path):
    """From its wheel, in a clean environment, beside other plugins, in other folders: the same
    method, known by equal digests, and on one machine the same weights.
    """
    wheel = build(ROOT / "plugins" / "nnunet-losses", tmp_path)
    records = []
    for name in ("author", "reader"):
        python = new_environment(tmp_path / name, libraries, core, wheel)
        if name == "reader":
            (packages,) = (tmp_path / name).glob("lib/python*/site-packages")
            fake_plugins.put_healthy(packages, 1)
        (tmp_path / f"home_of_{name}").mkdir()
        records.append(trained(python, tmp_path / f"home_of_{name}"))
    author, reader = records
    times = {"started", "finished", "seconds_per_case"}
    assert reader["plugins"].pop("healthy000") == "healthy000 1.0"
    assert author["components"]["loss"]["distribution"] == "nnunet-losses"
    assert {key: value for key, value in author.items() if key not in times} == {
        key: value for key, value in reader.items() if key not in times
    }
