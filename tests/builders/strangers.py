"""Packages of strangers: written down, installed with pip, and beside a command that runs in this
process.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import commands

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"

[tool.setuptools]
{content}
"""
ENTRY = '\n[project.entry-points.nnunet_plugins]\n{name} = "{plugin}"\n'
BRIEF = ("epochs=1", "iterations_per_epoch=2", "validation_iterations=1")


def install(
    folder: Path, name: str, version: str, modules: Mapping[str, str], plugin: str | None
) -> Path:
    """Install a package of modules {name: code}; return the folder that pip installed it into.

    Args:
        folder: For the sources, too.
        name, version: Of the distribution.
        modules: They lie in a package of that name if one of them is `__init__`, and beside each
            other otherwise.
        plugin: The module with its hooks; None registers nothing.
    """
    source, target = folder / f"{name}_source", folder / f"{name}_installed"
    package = "__init__" in modules
    place = source / name if package else source
    place.mkdir(parents=True)
    content = f"packages = ['{name}']" if package else f"py-modules = {list(modules)}"
    project = PROJECT.format(name=name, version=version, content=content)
    if plugin is not None:
        project += ENTRY.format(name=name, plugin=plugin)
    (source / "pyproject.toml").write_text(project)
    for module, code in modules.items():
        (place / f"{module}.py").write_text(code)
    return install_source(source, target)


def install_source(source: Path, target: Path) -> Path:
    """Install a folder of sources into another one; return that."""
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


@contextlib.contextmanager
def on_path(folder: Path | None) -> Iterator[None]:
    """Let a folder be on the path of this process, as PYTHONPATH puts it on that of a new one;
    forget its modules then.
    """
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        own = {path.stem for path in folder.iterdir()}
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]


def nnunet(folder: Path | None, *arguments: object, code: int = 0, **variables: str):
    """Run a command beside the packages in a folder; return what it ended with (commands.Done)."""
    with on_path(folder), mock.patch.dict(os.environ, variables):
        done = commands.nnunet(*arguments)
    assert done.returncode == code, done.stderr
    return done


def short_run(folder: Path, dataset: Path, *options: object) -> dict:
    """Train two iterations of one fold; return its run.json."""
    workspace = dataset.parents[1]
    before = set(workspace.glob("results/**/run.json"))
    settings = [part for setting in BRIEF for part in ("--set", f"trainer.{setting}")]
    settings += ["--set", "planner.max_batch_size=2"]
    where = ("--workspace", workspace, "--folds", 0, "--workers", 0)
    nnunet(folder, "run", dataset, *where, *settings, *options)
    (record,) = set(workspace.glob("results/**/run.json")) - before
    return json.loads(record.read_text())
