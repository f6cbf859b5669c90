"""Start-up imports nothing heavy, and lists are complete."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_model import make_tiny_model

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_cli.main import main
from nnunet_core.data.images import Geometry
from nnunet_core.registry.discovery import Registry

HEAVY = {"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "blosc2", "batchgenerators"}
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if {name, name.split(".")[0]} & BLOCKED:
            raise ImportError(f"{name} must not be imported at start-up")
sys.meta_path.insert(0, Blocker())
from nnunet_cli.main import main
main(sys.argv[1:])
"""


def run_blocked(*arguments, blocked=HEAVY):
    program = BLOCKER.replace("BLOCKED", repr(blocked))
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins", "list"], ["plugins", "--help"], ["--version"]]
)
def test_start_up_needs_no_heavy_library(arguments):
    result = run_blocked(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_planning_and_preprocessing_need_no_torch(tiny):
    result = run_blocked(
        "preprocess", str(tiny), "--workspace", str(tiny.parents[1]), blocked={"torch"}
    )
    assert result.returncode == 0, result.stderr


def test_predicting_needs_no_compiler_of_pytorch_and_no_stored_arrays(tmp_path):
    model = make_tiny_model(tmp_path / "3d_fullres", folds=1)
    image = np.random.default_rng(0).normal(100, 20, (9, 12, 10)).astype(np.float32)
    SimpleItkFormat().write(tmp_path / "a_0000.nii.gz", image, Geometry(image.shape))
    result = run_blocked(
        *("predict", str(model), str(tmp_path / "a_0000.nii.gz"), str(tmp_path / "a.nii.gz")),
        blocked={"torch._dynamo", "torch._inductor", "sympy", "blosc2", "matplotlib"},
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a.nii.gz").is_file()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_waiting_threads_give_their_core_away_unless_the_user_decides(monkeypatch, given, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seen = []
    monkeypatch.setattr(Registry, "discover", lambda: seen.append(dict(os.environ)) or 1 / 0)
    before = dict(os.environ)
    with pytest.raises(SystemExit):
        main(["plugins", "list", "--no-plugin", "pictures"])
    assert {name: seen[0][name] for name in names if name in seen[0]} == expected
    assert dict(os.environ) == before


def test_the_blocker_works():
    assert run_blocked("plan", "nowhere").returncode != 0


def test_plugins_list_as_json():
    rows = json.loads(run_blocked("plugins", "list", "--json").stdout)
    for kind, name in (
        ("planner", "v21"),
        ("loss", "dice_ce"),
        ("trainer", "v2"),
        ("variant", "default"),
    ):
        row = next(r for r in rows["components"] if (r["kind"], r["name"]) == (kind, name))
        assert (row["plugin"], row["distribution"]) == ("builtin", "nnunet-core")
        assert row["version"]
        assert row["summary"]


def test_every_command_has_help():
    help_text = run_blocked("--help").stdout
    for command in (
        "run",
        "plan",
        "preprocess",
        "train",
        "predict",
        "evaluate",
        "dataset",
        "plugins",
        "doctor",
    ):
        assert f"\n  {command}" in help_text
