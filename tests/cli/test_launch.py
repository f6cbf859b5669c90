"""Several processes: what takes the place of `nnunet train --gpus N`, and when it is refused."""

import os
import sys

import pytest
import torch

from nnunet_cli.launch import launch
from nnunet_core.errors import UsageError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("given", [["--gpus", "2"], ["--gpus=2"]])
def test_torchrun_takes_the_place_of_the_command(two_gpus, monkeypatch, given):
    called = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: called.append((program, arguments)))
    launch(["train", "Dataset017_Liver", *given, "--folds", "0"], 2, "auto")
    ((program, arguments),) = called
    assert program == arguments[0] == sys.executable
    assert arguments[1:] == [
        *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        *["-m", "nnunet_cli", "train", "Dataset017_Liver", "--folds", "0"],
    ]


def test_more_gpus_than_there_are(two_gpus):
    with pytest.raises(UsageError, match="this machine has 2 GPUs"):
        launch(["train"], 3, "auto")


@pytest.mark.parametrize("device", ["cuda:1", "cpu"])
def test_one_device_for_several_processes(two_gpus, device):
    with pytest.raises(UsageError, match=f"leave out --device {device}"):
        launch(["train"], 2, device)
