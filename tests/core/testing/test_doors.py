"""The doors of the conformance kit: rows, pytest's decorator, opt-outs, references."""

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import pytest
import torch

from nnunet_core.errors import UnknownComponentError, UsageError
from nnunet_core.registry.settings import Content
from nnunet_core.testing import check_component, checks_of, parametrize_with_checks

pytest_plugins = ["pytester"]


class Good:
    def build(self, *, batch_dice, ignore_label=None, regions=False):
        if regions or ignore_label is not None:
            raise UsageError("It is for classes that exclude each other, without an ignore label.")
        return lambda logits, target: torch.nn.functional.cross_entropy(logits, target[:, 0].long())


class PerVoxel:
    """Wrong: its loss is a number for each voxel."""

    def build(self, *, batch_dice, ignore_label=None, regions=False):
        return lambda logits, target: logits.mean(1)


NAME = "loss_is_a_finite_number"


def row_of(reference, kind=None, check=NAME, **options):
    (row,) = check_component(reference, kind, checks=[check], **options)
    return row


def test_a_function_returns_a_row_for_each_check():
    rows = check_component("builtin/ce", "loss")
    assert [row.check for row in rows] == [check.name for check in checks_of("loss")]
    assert {(row.outcome, row.kind, row.reference) for row in rows} == {
        ("passed", "loss", "builtin/ce")
    }


def test_a_wrong_component_has_a_failed_row_that_says_why():
    row = row_of(PerVoxel, "loss")
    assert row.outcome == "failed"
    assert "must be a scalar" in row.message


@dataclass
class FromFile:
    """A planner that reads its plans from a file."""

    plans: Annotated[str | None, Content(str)] = None

    def fingerprint(self, dataset, workers, progress=lambda: None):
        raise UsageError(f"There are no plans in {self.plans}: --set planner.plans=FILE")

    def plan(self, dataset, fingerprint, network):
        raise NotImplementedError


def test_a_component_that_needs_a_file_of_its_user_is_skipped_until_it_has_one():
    check = "planner_changes_no_file"
    row = row_of(FromFile, "planner", check=check)
    assert (row.outcome, "setting plans names" in row.message) == ("skipped", True)
    named = row_of(FromFile, "planner", check=check, settings={"plans": "a.json"})
    assert named.outcome == "failed"


def test_a_check_that_does_not_apply_is_skipped_with_a_reason():
    row = row_of("dice_bce", "loss", check="loss_prefers_better_predictions")
    assert row.outcome == "skipped"
    assert "not for classes" in row.message


def test_expected_failures_have_a_reason_and_have_to_fail():
    reason = {NAME: "maps are what I want"}
    row = row_of(PerVoxel, expected_failures=reason)
    assert row.outcome == "expected"
    assert row.message.startswith("maps are what I want (The loss")
    row = row_of(Good, "loss", expected_failures=reason)
    assert row.outcome == "failed"
    assert "It passes" in row.message
    with pytest.raises(UsageError, match="Did you mean 'loss_is_a_finite_number'"):
        check_component(Good, "loss", expected_failures={"loss_is_finite_number": ""})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("v2", "several kinds: preprocessor, augmentation, trainer"),
        ("dice_cf", "Did you mean 'dice_ce'"),
        ("collections:Counter", "has the methods of no kind"),
    ],
)
def test_a_reference_that_is_not_clear_is_refused(reference, message):
    with pytest.raises(UnknownComponentError, match=message):
        check_component(reference)


def test_a_plugin_is_checked_whole():
    rows = check_component("calibration", checks=["plugin_is_active", "command_documents_itself"])
    assert [(row.kind, row.check, row.outcome) for row in rows] == [
        ("plugin", "plugin_is_active", "passed"),
        ("command", "command_documents_itself", "passed"),
    ]


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'loss'"):
        check_component("dice_ce", "los")


@parametrize_with_checks([("loss", "dice_ce"), Good], checks=[NAME])
def test_pytest_door(component, check):
    check(component)


def test_pytest_reports_failures_skips_and_expected_failures(pytester):
    pytester.makepyfile(
        wrong=(
            "class Wrong:\n"
            "    def __init__(self, weight=1):\n"
            "        pass\n"
            "    def build(self, *, batch_dice, ignore_label=None, regions=False):\n"
            "        return None\n"
        ),
        test_it=(
            "from nnunet_core.testing import parametrize_with_checks\n"
            "wrong = [('loss', 'wrong:Wrong')]\n"
            "@parametrize_with_checks(wrong,\n"
            "    checks=['hook_module_is_light', 'settings_are_typed_json'])\n"
            "def test_plain(component, check):\n"
            "    check(component)\n"
            "@parametrize_with_checks(wrong, checks=['settings_are_typed_json'],\n"
            "    expected_failures={'settings_are_typed_json': 'as it is'})\n"
            "def test_expected(component, check):\n"
            "    check(component)\n"
        ),
    )
    # in a process of its own: pytester would load extension modules a second time into this one
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v", "-rsx")
    told = re.findall(r"::(\S+) ([A-Z]+)", result.stdout.str())
    assert told[:3] == [
        ("test_plain[loss-wrong:Wrong-hook_module_is_light]", "SKIPPED"),
        ("test_plain[loss-wrong:Wrong-settings_are_typed_json]", "FAILED"),
        ("test_expected[loss-wrong:Wrong-settings_are_typed_json]", "XFAIL"),
    ]
    result.stdout.fnmatch_lines(["SKIPPED*It is not registered by a plugin.", "XFAIL*as it is"])


def test_the_pytest_plugin_imports_nothing_heavy():
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import nnunet_core.testing.pytest_plugin\n"
        "heavy = {'torch', 'numpy', 'scipy', 'SimpleITK', 'pydantic', 'rich', 'blosc2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
