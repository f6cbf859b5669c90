"""The identity of a component changes with the code that it is made of, wherever that lies."""

import importlib
import sys
from dataclasses import dataclass
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Annotated

import pytest

from nnunet_core.registry.discovery import Registry, source_file
from nnunet_core.registry.provenance import code_digest, component_record
from nnunet_core.registry.settings import Content

STEP = """
from dataclasses import dataclass

from nnunet_core.contracts.augmentation import Step


@dataclass(frozen=True)
class Flow(Step):
    strength: float = {strength}
"""


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Write a module of one's own, outside any package; return what changes its source."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(strength):
        (tmp_path / "steps_of_ones_own.py").write_text(STEP.format(strength=strength))
        importlib.invalidate_caches()  # the folder may have been looked at a moment ago

    write(1)
    yield write
    sys.modules.pop("steps_of_ones_own", None)


def record(**settings):
    resolved = Registry.discover().resolve("augmentation", "v2").with_settings(settings)
    return component_record(resolved)


@pytest.mark.parametrize(
    "settings",
    [
        {"extra_steps": {"noise": ["steps_of_ones_own:Flow"]}},
        {"extra_steps": {"noise": [{"steps_of_ones_own:Flow": {"strength": 2}}]}},
        {"steps": ["spatial", "steps_of_ones_own:Flow", "mirror"]},
    ],
)
def test_code_that_a_setting_names_is_part_of_the_identity(local, settings):
    before = record(**settings)
    assert before.source_digest is not None
    assert record(**settings).identity() == before.identity()
    local(3)
    assert record(**settings).identity() != before.identity()


@dataclass
class Reading:
    table: Annotated[str | None, Content(lambda path: Path(path).read_text())] = None


def test_of_a_file_that_a_setting_names_the_content_is_part_of_the_identity(tmp_path):
    def identity(path, content):
        path.write_text(content)
        found = Registry().resolve("loss", f"{__name__}:Reading")
        return component_record(found.with_settings({"table": str(path)})).identity()

    first = identity(tmp_path / "a", "one")
    assert identity(tmp_path / "b", "one") == first
    assert identity(tmp_path / "a", "two") != first
    plain = component_record(Registry().resolve("loss", f"{__name__}:Reading"))
    assert plain.contents == {}


def test_code_of_packages_is_known_by_their_version():
    named = {"noise": ["batchgenerators.transforms.noise_transforms:RicianNoiseTransform"]}
    assert record(extra_steps=named).source_digest is None
    assert record().source_digest is None


def test_the_file_of_a_module_is_found_without_running_it(local):
    assert source_file("steps_of_ones_own:Flow").endswith("steps_of_ones_own.py")
    assert "steps_of_ones_own" not in sys.modules
    assert source_file("nnunet_core.registry.records:FoldRecord").endswith("records.py")
    assert source_file("no_such_module:Anything") is None
    assert source_file("sys:path") is None


def test_the_source_of_an_editable_installation_is_found_without_importing_it(
    tmp_path, monkeypatch
):
    """Its finder stands beside that of the path: setuptools maps a package to its folder."""
    package = tmp_path / "anywhere"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('nobody imports this')")
    (package / "hooks.py").write_text("")

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "mapped_package":
                places = [str(package)]
                init = str(package / "__init__.py")
                return spec_from_file_location(name, init, submodule_search_locations=places)
            return None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert source_file("mapped_package.hooks:Anything") == str(package / "hooks.py")


SOURCE = '''rate = 1
text = """a

# b
"""
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("rate = 1", "# of ours\n\nrate = 1  # per second\n\n", True),
        ("rate = 1", "rate = 2", False),
        ("\n\n# b", "\n# b", False),
        ("# b", "# c", False),
        ("rate = 1", "rate = '#1'", False),
    ],
)
def test_comments_and_empty_lines_are_no_change(tmp_path, old, new, same):
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(SOURCE)
    second.write_text(SOURCE.replace(old, new))
    assert (code_digest(first) == code_digest(second)) == same


def test_what_is_no_python_is_known_by_its_bytes(tmp_path):
    first, second = tmp_path / "first.so", tmp_path / "second.so"
    first.write_bytes(b"\x7fELF\0 # one")
    second.write_bytes(b"\x7fELF\0 # two")
    assert code_digest(first) != code_digest(second)


def test_packages_have_a_digest_of_their_code_that_is_no_identity():
    found = record()
    assert found.code_digest is not None
    other = found.model_copy(update={"code_digest": "0" * 16})
    assert found.identity() == other.identity()
