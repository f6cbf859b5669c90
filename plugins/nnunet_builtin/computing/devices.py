"""Turn the user's wish for a device and a precision into what this machine has."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError
from nnunet_core.runtime.workers import usable_cores

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Order of features in memory, by spatial dimensions, that convolutions on CPUs are fastest in.
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
_MOST_WORKERS = 12
_FEWEST_VOXELS = 2


@dataclass(frozen=True)
class ResolvedRuntime:
    """How to compute here.

    Attributes:
        device: Where networks live.
        dtype: Of convolutions; float32 elsewhere.
        threads: Compute threads on CPU.
        workers: Loader processes.
        channels_last: Order of features in memory; None is the one that convolutions of the device
            are fastest in.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    workers: int
    channels_last: bool | None = None


def resolve(runtime: Runtime) -> ResolvedRuntime:
    """Return the device, precision, threads and loaders for a request.

    Raises:
        UsageError: A device or precision that does not exist here; the message lists what does.
    """
    device = _device(runtime.device)
    cores = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    workers = (
        runtime.workers if runtime.workers is not None else max(1, min(_MOST_WORKERS, cores - 1))
    )
    threads = runtime.threads or _allowed_threads() or cores
    return ResolvedRuntime(device, _dtype(runtime.precision, device), threads, workers)


def _allowed_threads() -> int:
    """Return what OMP_NUM_THREADS says, 0 without it: a batch system sets it to the cores of a job
    where it does not bind processes to them.
    """
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    outermost = text.partition(",")[0].strip()  # of a list, one number per level of nesting
    if text and not (outermost.isdigit() and int(outermost) > 0):
        raise UsageError(
            f"OMP_NUM_THREADS is '{text}'; it is a number of threads, or several with commas "
            "between them. Set it so, or unset it."
        )
    return int(outermost or 0)


def with_exact_gradients(
    runtime: ResolvedRuntime, spec: NetworkSpec, patch_size: Sequence[int]
) -> ResolvedRuntime:
    """Return the runtime to train with: float32 where bfloat16 on CPU is wrong.

    oneDNN (PyTorch 2.13) computes wrong weight gradients of 3D convolutions in bfloat16 where a
    resolution has 2 voxels or fewer along an axis.
    """
    sizes = list(patch_size)
    for kernel in spec.pool_kernels:
        sizes = [size // step for size, step in zip(sizes, kernel, strict=True)]
    wrong = (
        runtime.device.type == "cpu" and runtime.dtype == torch.bfloat16 and spec.dimensions == 3
    )
    return (
        replace(runtime, dtype=torch.float32) if wrong and min(sizes) <= _FEWEST_VOXELS else runtime
    )


def memory_format(runtime: ResolvedRuntime, dimensions: int) -> torch.memory_format:
    """Return the order of features in memory.

    Unless the runtime says otherwise it is channels-last on CPUs; GPUs would reorder at every
    normalisation.
    """
    last = runtime.device.type == "cpu" if runtime.channels_last is None else runtime.channels_last
    return CHANNELS_LAST[dimensions] if last else torch.contiguous_format


def autocast(runtime: ResolvedRuntime) -> torch.autocast:
    """Return the context of the forward pass: mixed precision where the runtime asks for it."""
    return torch.autocast(
        runtime.device.type, runtime.dtype, enabled=runtime.dtype != torch.float32
    )


def available_devices() -> list[str]:
    """Return the devices of this machine, the fastest first."""
    found = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    return found + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]


def _device(name: str) -> torch.device:
    devices = available_devices()
    own = f"cuda:{os.environ.get('LOCAL_RANK', '')}"
    if name in {"auto", "cuda"} and "LOCAL_RANK" in os.environ and devices[0] == "cuda:0":
        if torch.cuda.device_count() == 1:  # a launcher that shows each process its own GPU
            return torch.device("cuda:0")
        if own not in devices:
            raise UsageError(
                f"There are more processes than GPUs: no {own} here. Available: "
                f"{', '.join(devices)}."
            )
        return torch.device(own)  # one of several processes, each with a GPU of its own
    if name == "auto":
        return torch.device(devices[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in devices:
        raise UsageError(
            f"There is no device '{name}' here. Available: auto, {', '.join(devices)}."
        )
    return torch.device(wanted)


def available_precisions(device: torch.device) -> list[str]:
    """Return the precisions that a device computes in; float16 needs a GPU, bfloat16 a GPU that has
    it or a CPU.
    """
    if device.type == "cpu":
        return ["float32", "bfloat16"]
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return ["float32", "float16"]
    return list(PRECISIONS)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return _fastest(device)
    allowed = available_precisions(device)
    if name not in allowed:
        raise UsageError(
            f"The precision '{name}' is not available on {device}. Allowed: auto, "
            f"{', '.join(allowed)}."
        )
    return PRECISIONS[name]


def _fastest(device: torch.device) -> torch.dtype:
    """Return what the device is fast in: float16 on GPUs as v1, bfloat16 on CPUs with instructions
    for it.
    """
    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu" and _native_bfloat16():
        return torch.bfloat16
    return torch.float32


def has_tile_products() -> bool:
    """Return whether the CPU multiplies matrices of bfloat16 in one instruction (AMX): products
    cost next to nothing there.
    """
    return "amx_bf16" in _processor_flags()


def _native_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 numbers itself (AVX-512 BF16, AMX, or Arm's BF16
    extension).

    Without these instructions PyTorch computes in bfloat16 too, but slower than in float32.
    """
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    flags = _processor_flags()
    return torch.backends.cpu.get_cpu_capability() != "DEFAULT" and bool(
        flags & {"avx512_bf16", "amx_bf16", "bf16"}
    )


@functools.cache
def _processor_flags() -> frozenset[str]:
    """Return the words of Linux's description of the processor, nothing elsewhere."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()
