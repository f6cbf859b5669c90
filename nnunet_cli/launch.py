"""Turn a command into several processes through `torchrun`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from nnunet_core.errors import UsageError


def launch(arguments: Sequence[str], processes: int, device: str) -> NoReturn:
    """Let `torchrun` run `nnunet` with these arguments, without `--gpus`, in several processes; end
    as they end.

    `torchrun` passes Ctrl-C and the signals of batch systems on to the trainings. The exit code is
    that of the process that failed first, or 128 + the number of the signal, as without `--gpus`.

    Raises:
        UsageError: There are fewer GPUs, or a single one is asked for.
    """
    import torch

    if device not in {"auto", "cuda"}:
        raise UsageError(
            f"--gpus {processes} takes the first GPUs of this machine; leave out --device {device}."
        )
    if torch.cuda.device_count() < processes:
        raise UsageError(
            f"--gpus {processes}: this machine has {torch.cuda.device_count()} GPUs. For processes "
            f"on CPUs run: torchrun --nproc-per-node {processes} -m nnunet_cli train ..."
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun would, which also warns
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # the trainings say what failed
    launcher = ["--standalone", f"--nproc-per-node={processes}", "-m", "nnunet_cli"]
    sys.exit(_run([*launcher, *_without_gpus(arguments)]))


def _run(arguments: Sequence[str]) -> int:
    """Run `torchrun` in this process; return an exit code."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    try:
        main(list(arguments))
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


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
