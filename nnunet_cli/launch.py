"""Start a command in several processes through `torchrun`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `nnunet` with these arguments, without `--gpus`, in several processes; return the exit code."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("--gpus="):
            skip = False
        elif argument == "--gpus":
            skip = True
        else:
            kept.append(argument)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([sys.executable, *launcher, "-m", "nnunet_cli", *kept], check=False).returncode
