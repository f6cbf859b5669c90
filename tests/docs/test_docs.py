"""The documentation says what the code does: generated pages, links, commands in examples, the
README's plugin.
"""

import ast
import graphlib
import importlib
import inspect
import itertools
import json
import re
import shlex
import types
from pathlib import Path

import generate
import numpy as np
import pytest
import typer

from nnunet_builtin.datasets.metadata import training_metadata
from nnunet_builtin.datasets.reading import read_labels, surface_tolerances
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_cli.app import commands
from nnunet_cli.options import parse_assignments
from nnunet_core import errors
from nnunet_core.data.images import Geometry
from nnunet_core.data.splits import Splits
from nnunet_core.registry.components import KINDS
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.registry.records import FoldRecord
from nnunet_core.registry.settings import full_settings
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.evaluate import evaluate_case, summarise
from nnunet_core.store.models import ModelDocument

ROOT = Path(__file__).parent.parent.parent
#: Of the packages, whose components need not be installed here.
READMES = sorted((ROOT / "plugins").glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```(\w*)[^\n]*\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    "page", ["cli.md", "hooks.md", "contracts.md", "components.md", "modules.md", "checks.md"]
)
def test_generated_pages_are_current(page):
    assert (ROOT / "docs/reference" / page).read_text() == generate.PAGES[page](), (
        "run: python docs/generate.py"
    )


def test_every_room_has_a_line_in_the_architecture():
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    listed = re.findall(r"^\| `([\w/]+)` \|", page, re.MULTILINE)
    tree = [
        str(room.relative_to(ROOT))
        for package in generate.PACKAGES
        for room in generate.rooms(package)
    ]
    assert sorted(listed) == sorted(tree)


def imports_of(path):
    """Yield the modules that a file imports, those for types included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_module_imports_itself_through_others_not_even_for_types():
    files = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): path
        for package in generate.PACKAGES
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {
        name: {other for other in imports_of(path) if other in files}
        for name, path in files.items()
    }
    assert len(graph) > 100
    assert sum(map(len, graph.values())) > 300
    list(
        graphlib.TopologicalSorter(graph).static_order()
    )  # raises CycleError, which names the circle


def test_links_resolve():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation


def example_commands(pages=PAGES):
    for page in pages:
        for language, block in BLOCK.findall(page.read_text()):
            for line in block.splitlines() if language == "bash" else ():
                words = shlex.split(line, comments=True)
                if words and words[0].rpartition("/")[2] == "nnunet":
                    yield page.name, words[1:]


def test_commands_in_examples_exist():
    checked, registered = 0, commands(Registry.discover())
    for page, words in example_commands([*PAGES, *READMES]):
        if words[0] in {"--install-completion", "--show-completion"}:  # of `nnunet` itself
            continue
        name = next((n for n in registered if words[: len(n.split())] == n.split()), None)
        assert name, f"{page}: nnunet {' '.join(words)}"
        module, _, attribute = registered[name][0].partition(":")
        app = typer.Typer()
        app.command()(getattr(importlib.import_module(module), attribute))
        command = typer.main.get_command(app)
        known = {option for p in command.params for option in [*p.opts, *p.secondary_opts]} | {
            "--no-plugin",
            "--debug",
        }
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, (
            f"{page}: {words}"
        )
        checked += 1
    assert checked > 15


def test_components_are_shown_by_their_reference():
    """`plugins show NAME --kind KIND`, as `plugins check` and `list`; once it was KIND NAME."""
    before = re.compile(rf"plugins show ({'|'.join((*KINDS, 'variant'))}) [\w{{<]")
    code = [p for package in generate.PACKAGES for p in package.rglob("*.py")]
    found = [
        (str(p), m[0]) for p in [*PAGES, *READMES, *code] for m in before.finditer(p.read_text())
    ]
    assert found == []


def test_the_plugin_of_the_readme_registers():
    code = next(
        block
        for language, block in BLOCK.findall((ROOT / "README.md").read_text())
        if language == "python"
    )
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    module = types.ModuleType("mypkg_plugin")
    exec(compile(code, "README.md", "exec"), vars(module))
    registry = Registry.discover()
    registry.register(module, PluginInfo("mypkg", "mypkg.plugin", "mypkg", "0.1", "active"))
    assert registry.resolve("planner", "v21_24GB").component.settings == {"gpu_memory_gb": 24}


def read(page):
    return (ROOT / "docs" / page).read_text()


def test_settings_in_examples_exist():
    registry, checked = Registry.discover(), 0
    for page, words in example_commands():
        pairs = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
        for kind, fields in parse_assignments(pairs).items():
            chosen = dict(itertools.pairwise(words)).get(f"--{kind}", "")
            if "topk-variant" in words or ":" in chosen:  # code of the page itself
                continue
            known = {name for c in registry.components(kind) for name in full_settings(c)}
            assert set(fields) <= known, f"{page}: {kind}.{fields}"
            checked += 1
    assert checked > 5


def test_every_environment_variable_is_documented():
    code = "".join(
        p.read_text()
        for folder in ("nnunet_core", "nnunet_cli", "plugins")
        for p in (ROOT / folder).rglob("*.py")
        if "tests" not in p.parts[len(ROOT.parts) :]
    )
    names = set(
        re.findall(
            r"\b(?:NNUNET_[A-Z_]+|nnUNet_(?:raw_data_base|raw|preprocessed|results)|RESULTS_FOLDER)\b",
            code,
        )
    )
    assert len(names) > 5
    assert {name for name in names if f"`{name}`" not in read("reference/environment.md")} == set()


def test_every_error_class_is_documented_with_its_exit_code():
    page = read("reference/errors.md")
    for name, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, errors.NnunetError):
            assert f"| `{name}` | {error.exit_code} |" in page


@pytest.mark.parametrize(
    ("document", "title"), [(FoldRecord, "run.json"), (ModelDocument, "model.json")]
)
def test_every_field_of_a_record_is_documented(document, title):
    section = read("reference/files.md").partition(f"## {title}\n")[2].partition("\n## ")[0]
    assert {name for name in document.model_fields if f"`{name}`" not in section} == set()


def test_every_metric_is_documented():
    label = np.ones((1, 2, 2), np.uint8)
    labels = read_labels({"labels": {"background": 0, "organ": 1}}, "test")
    metrics = summarise([evaluate_case(label, label, labels)])["results"]["mean"]["1"]
    assert [name for name in metrics if f"`{name}`" not in read("reference/files.md")] == []


def json_blocks(page):
    return [
        json.loads(block) for language, block in BLOCK.findall(read(page)) if language == "json"
    ]


def test_the_labels_and_folds_of_the_pages_are_valid():
    documents = [d for d in json_blocks("reference/dataset-json.md") if "labels" in d]
    found = [read_labels(document, "page") for document in documents]
    assert [(labels.outputs, labels.ignore) for labels in found] == [
        (3, None),
        (3, None),
        (2, 2),
        (3, None),
        (3, None),
        (2, None),
    ]
    tolerances = surface_tolerances(documents[-2], found[-2], "page")
    assert tolerances == {"liver": 3.0, "tumour": 1.5}
    assert len(Splits.model_validate(*json_blocks("how-to/folds.md")).folds) == 2


@pytest.mark.parametrize("page", ["reference/dataset-json.md", "how-to/extra-data.md"])
def test_the_metadata_of_the_pages_is_valid(page):
    (document,) = (d for d in json_blocks(page) if "labels" not in d)
    names = ["hippocampus_001", "hippocampus_003"]
    assert list(training_metadata(document, Path(page), names)) == names


def test_the_dataset_of_the_page_can_be_opened(tmp_path):
    (document,) = json_blocks("how-to/own-dataset.md")
    folder, label = tmp_path / "Dataset017_Liver", np.ones((2, 2, 2), np.uint8)
    for part, name in (("imagesTr", "patient_01_0000"), ("labelsTr", "patient_01")):
        SimpleItkFormat().write(folder / part / f"{name}.nii.gz", label, Geometry((2, 2, 2)))
    (folder / "dataset.json").write_text(json.dumps(document))
    assert open_dataset("17", tmp_path, Registry.discover()).names == ("patient_01",)
