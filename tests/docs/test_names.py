"""Files, modules, defaults and abilities that the documentation names are those of the code."""

import ast
import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
from pages import rows_of

from nnunet_builtin.training.settings import TrainerSettings
from nnunet_core.contracts import abilities, network

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ARCHITECTURE = (ROOT / "docs/explanation/architecture.md").read_text()
PATH = re.compile(r"`((?:nnunet_core|nnunet_cli|plugins|tests)/[\w/]+(?:\.py)?)`")
MODULE = re.compile(r"\b(nnunet_(?:core|cli|builtin)(?:\.\w+)+(?::\w+)?)")


@pytest.mark.parametrize("row", rows_of(ARCHITECTURE, "To change X, look in Y"), ids=lambda r: r[0])
def test_the_map_of_changes_names_files_and_what_is_in_them(row):
    _, look, there = row
    paths = PATH.findall(look + there)
    assert paths
    text = "".join((ROOT / path).read_text() for path in paths)
    for name in re.findall(r"`(\w+)`", there):
        assert re.search(rf"\b{name}\b", text) or (ROOT / name).is_dir(), name


def test_every_path_in_the_documentation_exists():
    for page in PAGES:
        for path in PATH.findall(page.read_text()):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def exists(name):
    """Return whether `package.module`, `package.module.Name` or `package.module:Name` is there."""
    module, _, attribute = name.replace(":", ".").rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def is_module(name):
    try:
        importlib.import_module(name)
    except (ModuleNotFoundError, ValueError):
        return False
    return True


def test_every_module_in_the_documentation_exists():
    for page in PAGES:
        for name in set(MODULE.findall(page.read_text())):
            assert is_module(name) or exists(name), f"{page.name} names {name}"


def test_the_imports_of_examples_exist():
    for page in PAGES:
        for block in re.findall(r"```python[^\n]*\n(.*?)```", page.read_text(), re.DOTALL):
            if page.name in {"contracts.md", "hooks.md"}:
                continue
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("nnunet_"):
                    for alias in node.names:
                        assert exists(f"{node.module}.{alias.name}"), f"{page.name}: {alias.name}"


def test_the_defaults_of_the_trainer_on_its_page_are_those_of_the_code():
    page = (ROOT / "docs/how-to/train.md").read_text()
    known, checked = {field.name: field.default for field in fields(TrainerSettings)}, 0
    for names, values, *_ in rows_of(page, "Settings of the trainer"):
        settings = re.findall(r"`(\w+)`", names)
        assert set(settings) <= set(known), settings
        shown = values.split(", ")
        if len(shown) != len(settings) or values == "of the plans":
            continue
        for name, value in zip(settings, shown, strict=True):
            word = known[name] is None or isinstance(known[name], str | bool)
            expected = {"off": None}.get(value, value.strip("`")) if word else float(value)
            assert str(expected).lower() == str(known[name]).lower() or expected == known[name], (
                name
            )
            checked += 1
    assert checked > 20


def test_every_ability_is_on_its_page():
    page = (ROOT / "docs/how-to/change-one-part.md").read_text()
    declared = {
        name
        for module in (abilities, network)
        for name, value in inspect.getmembers(module, inspect.isclass)
        if getattr(value, "_is_runtime_protocol", False) and value.__module__ == module.__name__
    }
    rows = rows_of(page, "What a component may do beyond its contract")
    assert {re.search(r"`(\w+)`", row[0])[1] for row in rows} == declared
