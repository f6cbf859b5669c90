"""Turn a command into several processes through `torchrun`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from nnunet_core.errors import UsageError


def launch(arguments: Sequence[str], processes: int, device: str) -> NoReturn:
    """Replace this process by `torchrun`, which runs `nnunet` with these arguments, without `--gpus`, in several processes.

    It takes the place of this process so that Ctrl-C and the signals of batch systems reach it, and through it the trainings.

    Raises:
        UsageError: There are fewer GPUs, or a single one is asked for.
    """
    import torch

    if device not in {"auto", "cuda"}:
        raise UsageError(f"--gpus {processes} takes the first GPUs of this machine; leave out --device {device}.")
    if torch.cuda.device_count() < processes:
        raise UsageError(
            f"--gpus {processes}: this machine has {torch.cuda.device_count()} GPUs. For processes on CPUs run: torchrun "
            f"--nproc-per-node {processes} -m nnunet_cli train ..."
        )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *launcher, "-m", "nnunet_cli", *_without_gpus(arguments)])


def _without_gpus(arguments: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("--gpus="):
            skip = False
        elif argument == "--gpus":
            skip = True
        else:
            kept.append(argument)
    return kept
