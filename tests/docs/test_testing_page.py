"""The examples of "Test a plugin" run as they stand, beside the package that they speak of."""

import re
from pathlib import Path

import pytest

from nnunet_core.testing import check_component

pytest_plugins = ["pytester"]
PAGE = Path(__file__).parents[2] / "docs/how-to/test-a-plugin.md"
PLUGIN = """
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_losses():
    return [Component("my_focal", "mypkg.losses:Focal")]
"""
LOSSES = """
class Focal:
    def build(self, *, batch_dice, ignore_label=None, regions=False):
        return lambda logits, target: logits.mean(1)  # a map
"""
TRAINING = """
from nnunet_builtin.training.trainer import TrainerV2

class Longer(TrainerV2):
    pass
"""
FILES = {
    "mypkg/__init__.py": "",
    "mypkg/plugin.py": PLUGIN,
    "mypkg/losses.py": LOSSES,
    "mypkg/training.py": TRAINING,
}


@pytest.fixture
def package(tmp_plugin):
    """The package of the page."""
    return tmp_plugin("mypkg.plugin", FILES)


def blocks():
    """Return the examples in Python: two ways to write a test, a script, tests with fixtures."""
    return re.findall(r"```python[^\n]*\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("package")
def test_the_examples_do_what_the_page_says(pytester):
    first, second, _, fixtures = blocks()
    header = "from nnunet_core.testing import parametrize_with_checks\n"
    pytester.makepyfile(test_1=first, test_2=header + second, test_3=fixtures)
    chosen = "is_picklable or loss_is_a_finite_number or test_3"
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v", "-k", chosen)
    told = re.findall(r"^test_(\d).py::(\S+) ([A-Z]+)", result.stdout.str(), re.MULTILINE)
    assert told == [
        ("1", "test_contract[loss-mypkg/my_focal-is_picklable]", "PASSED"),
        ("1", "test_contract[loss-mypkg/my_focal-loss_is_a_finite_number]", "FAILED"),
        ("1", "test_contract[trainer-mypkg.training:Longer-is_picklable]", "PASSED"),
        ("2", "test_contract[loss-mypkg/my_focal-is_picklable]", "PASSED"),
        ("2", "test_contract[loss-mypkg/my_focal-loss_is_a_finite_number]", "XFAIL"),
        ("3", "test_it_is_found", "PASSED"),
        ("3", "test_on_a_toy_dataset[3d]", "PASSED"),
        ("3", "test_on_a_toy_dataset[regions]", "PASSED"),
    ]


def test_the_function_returns_what_the_page_prints(package):
    rows = check_component("mypkg/my_focal", checks=["is_picklable", "loss_is_a_finite_number"])
    assert [(row.outcome, row.check) for row in rows] == [
        ("passed", "is_picklable"),
        ("failed", "loss_is_a_finite_number"),
    ]
