"""A stranger's package takes part in a run by name, and a run says where each part came from."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.slow

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"

[tool.setuptools]
packages = ["{name}"]
"""
ENTRY = '\n[project.entry-points.nnunet_plugins]\n{name} = "{name}.plugin"\n'
PLUGIN = """
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_planners():
    return [Component("v21_24GB", "nnunet_builtin.planning.planner:PlannerV21", "24 GB", {"gpu_memory_gb": 24})]

@hookimpl
def nnunet_losses():
    return [Component("my_focal", "mypkg.losses:Focal", "focal loss")]

@hookimpl
def nnunet_networks():
    return [Component("small", "mypkg.networks:Small", "one convolution per resolution")]
"""
LOSSES = """
import torch
from torch.nn import functional

class Focal:
    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def build(self, *, batch_dice, ignore_label=None, regions=False):
        def loss(logits, target):
            entropy = functional.cross_entropy(logits.float(), target[:, 0].long(), reduction="none")
            return ((1 - torch.exp(-entropy)) ** self.gamma * entropy).mean()
        return loss
"""
NETWORKS = """
from torch import nn
from nnunet_builtin.networks.estimate import pooling_divisor, unet_memory

class Heads(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.deep_supervision = True
        channels = (spec.input_channels, spec.output_channels)
        self.convolutions = nn.ModuleList(nn.Conv3d(*channels, 3, padding=1) for _ in spec.pool_kernels)
        self.pools = spec.pool_kernels

    def forward(self, images):
        found, current = [], images
        for convolution, pool in zip(self.convolutions, self.pools):
            found.append(convolution(current))
            current = nn.functional.avg_pool3d(current, tuple(pool))
        return found if self.deep_supervision else found[0]

class Small:
    def build(self, spec):
        return Heads(spec)

    def memory(self, spec, patch_size):
        return unet_memory(spec, patch_size)

    def divisor(self, spec):
        return pooling_divisor(spec)
"""


def install(folder, name, version, *, registered):
    """Write a package and install it with pip into a folder of its own; return that folder."""
    source, target = folder / f"{name}_source", folder / f"{name}_installed"
    (source / name).mkdir(parents=True)
    text = PROJECT.format(name=name, version=version) + (
        ENTRY.format(name=name) if registered else ""
    )
    (source / "pyproject.toml").write_text(text)
    for module, code in (
        ("__init__", ""),
        ("plugin", PLUGIN),
        ("losses", LOSSES),
        ("networks", NETWORKS),
    ):
        (source / name / f"{module}.py").write_text(textwrap.dedent(code))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
        str(source),
    ]
    subprocess.run(command, check=True)
    return target


def nnunet(path, *arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "nnunet_cli", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


def short_run(path, tiny, *options):
    """Train two iterations of one fold; return its run.json."""
    workspace = tiny.parent.parent
    brief = ("epochs=1", "iterations_per_epoch=2", "validation_iterations=1")
    settings = [part for setting in brief for part in ("--set", f"trainer.{setting}")]
    before = set(workspace.glob("results/**/run.json"))
    nnunet(
        path,
        "run",
        tiny,
        "--workspace",
        workspace,
        "--folds",
        "0",
        "--workers",
        "0",
        *settings,
        "--set",
        "planner.max_batch_size=2",
        *options,
    )
    (record,) = set(workspace.glob("results/**/run.json")) - before
    return json.loads(record.read_text())


def test_registered_components_run_by_name(tmp_path, tiny):
    path = install(tmp_path, "mypkg", "1.2.3", registered=True)
    rows = json.loads(nnunet(path, "plugins", "list", "--json"))["components"]
    theirs = {
        (r["kind"], r["name"], r["distribution"], r["version"])
        for r in rows
        if r["plugin"] == "mypkg"
    }
    assert theirs == {
        (k, n, "mypkg", "1.2.3")
        for k, n in (("planner", "v21_24GB"), ("loss", "my_focal"), ("network", "small"))
    }

    record = short_run(
        path, tiny, "--planner", "v21_24GB", "--loss", "my_focal", "--network", "mypkg/small"
    )
    assert record["status"] == "finished"
    for kind in ("planner", "loss", "network"):
        component = record["components"][kind]
        assert (component["distribution"], component["version"]) == ("mypkg", "1.2.3")
    assert record["components"]["planner"]["settings"]["gpu_memory_gb"] == 24
    assert record["components"]["trainer"]["distribution"] == "nnunet-core"
    assert record["plugins"]["mypkg"] == "mypkg 1.2.3"


def test_code_that_nobody_registered_runs_by_module_and_class(tmp_path, tiny):
    path = install(tmp_path, "mypkg", "0.9", registered=False)
    record = short_run(path, tiny, "--loss", "mypkg.losses:Focal", "--set", "loss.gamma=1.5")
    component = record["components"]["loss"]
    assert (component["reference"], component["distribution"], component["version"]) == (
        "mypkg.losses:Focal",
        "mypkg",
        "0.9",
    )
    assert component["settings"] == {"gamma": 1.5}
