"""What a process computes with for a while: threads, memory, reproducible operations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from nnunet_builtin.computing.allocation import freed_memory_kept
from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_core.errors import TrainingError


@contextlib.contextmanager
def computing(runtime: ResolvedRuntime, deterministic: bool = False) -> Iterator[None]:
    """Use the runtime's compute threads, keep freed memory, and reproducible GPU operations if
    asked, inside the block.
    """
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(runtime.threads)
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:  # else not even called: it imports PyTorch's compiler, which takes seconds
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with freed_memory_kept() if runtime.device.type == "cpu" else contextlib.nullcontext():
            yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{runtime.device} has too little memory: {str(error).splitlines()[0]} End what else "
            "runs on it, use another GPU, or train with smaller batches or patches: --set "
            "trainer.batch_size=..., --set planner.gpu_memory_gb=..."
        ) from error
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        if deterministic:
            torch.use_deterministic_algorithms(False)
