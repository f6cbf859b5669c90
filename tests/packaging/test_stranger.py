"""A stranger's package takes part in a run by name, and a run says where each part came from."""

import json
import os
import subprocess
import sys

import pytest
from strangers import install, short_run

pytestmark = pytest.mark.slow

PLUGIN = """
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_planners():
    target = "nnunet_builtin.planning.planner:PlannerV21"
    return [Component("v21_24GB", target, "24 GB", {"gpu_memory_gb": 24})]

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
            classes = target[:, 0].long()
            entropy = functional.cross_entropy(logits.float(), classes, reduction="none")
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
        convolutions = [nn.Conv3d(*channels, 3, padding=1) for _ in spec.pool_kernels]
        self.convolutions = nn.ModuleList(convolutions)
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


CODE = {"__init__": "", "plugin": PLUGIN, "losses": LOSSES, "networks": NETWORKS}


def in_new_process(path, *arguments):
    """Return what a command prints that finds the package by PYTHONPATH alone."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", "nnunet_cli", *arguments]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_registered_components_run_by_name(tmp_path, tiny):
    path = install(tmp_path, "mypkg", "1.2.3", CODE, "mypkg.plugin")
    rows = json.loads(in_new_process(path, "plugins", "list", "--json"))["components"]
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
    path = install(tmp_path, "mypkg", "0.9", CODE, None)
    record = short_run(path, tiny, "--loss", "mypkg.losses:Focal", "--set", "loss.gamma=1.5")
    component = record["components"]["loss"]
    assert (component["reference"], component["distribution"], component["version"]) == (
        "mypkg.losses:Focal",
        "mypkg",
        "0.9",
    )
    assert component["settings"] == {"gamma": 1.5}
