"""Several processes: what takes the place of `nnunet train --gpus N`, and when it is refused."""

import pytest
import torch
import torch.distributed.run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from nnunet_cli.launch import launch
from nnunet_core.errors import UsageError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("given", [["--gpus", "2"], ["--gpus=2"]])
def test_torchrun_runs_the_command(two_gpus, monkeypatch, given):
    called = []
    monkeypatch.setattr(torch.distributed.run, "main", called.append)
    with pytest.raises(SystemExit) as ended:
        launch(["train", "Dataset017_Liver", *given, "--folds", "0"], 2, "auto")
    assert ended.value.code == 0
    assert called == [
        [
            "--standalone",
            "--nproc-per-node=2",
            "-m",
            "nnunet_cli",
            "train",
            "Dataset017_Liver",
            "--folds",
            "0",
        ]
    ]


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (2, 2), (-9, 137)])
def test_the_exit_code_is_that_of_the_process_that_failed_first(
    two_gpus, monkeypatch, code, expected
):
    def failing(_):
        failures = {
            0: ProcessFailure(0, 1, code, "nowhere"),
            1: ProcessFailure(1, 2, 143, "nowhere"),
        }
        failures[1].timestamp = failures[0].timestamp + 9
        raise ChildFailedError("nnunet", failures)

    monkeypatch.setattr(torch.distributed.run, "main", failing)
    with pytest.raises(SystemExit) as ended:
        launch(["train"], 2, "auto")
    assert ended.value.code == expected


def test_more_gpus_than_there_are(two_gpus):
    with pytest.raises(UsageError, match="this machine has 2 GPUs"):
        launch(["train"], 3, "auto")


@pytest.mark.parametrize("device", ["cuda:1", "cpu"])
def test_one_device_for_several_processes(two_gpus, device):
    with pytest.raises(UsageError, match=f"leave out --device {device}"):
        launch(["train"], 2, device)
