"""The machine: versions, devices, and the space that folders and loader processes have."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nnunet_builtin.computing.devices import available_devices, available_precisions, resolve
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.runtime.memory import GB
from nnunet_core.runtime.workers import usable_cores
from nnunet_core.store.workspace import Workspace

_SHARED = Path("/dev/shm")
_ENOUGH_SHARED = 1.0


@dataclass(frozen=True)
class Place:
    """A folder that files go to.

    Attributes:
        folder: It may not be there yet.
        exists, writable: Whether it is, and whether files can be made there.
        free_gb: Of its disk.
    """

    folder: str
    exists: bool
    writable: bool
    free_gb: float


def system() -> dict[str, Any]:
    """Return Python, platform and cores."""
    cores = {"cores": os.cpu_count(), "usable_cores": usable_cores()}
    return {"python": platform.python_version(), "platform": platform.platform(), **cores}


def devices() -> list[dict[str, Any]]:
    """Return every device with its precisions; of GPUs, model and memory."""
    found = []
    for name in available_devices():
        device = torch.device(name)
        row: dict[str, Any] = {"name": name, "precisions": available_precisions(device)}
        if device.type == "cuda":
            facts = torch.cuda.get_device_properties(device)
            row |= {"model": facts.name, "memory_gb": round(facts.total_memory / GB, 1)}
        found.append(row)
    return found


def chosen() -> dict[str, Any]:
    """Return what a command uses that says nothing of device, precision, threads and loaders."""
    runtime = resolve(Runtime())
    return {
        "device": str(runtime.device),
        "precision": str(runtime.dtype).removeprefix("torch."),
        "threads": runtime.threads,
        "loaders": runtime.workers,
    }


def places(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return the folders of a workspace, and that of temporary files."""
    folders = {name: getattr(workspace, name) for name in ("raw", "preprocessed", "results")}
    folders["temporary"] = Path(tempfile.gettempdir())
    return {name: asdict(_place(folder)) for name, folder in folders.items()}


def _place(folder: Path) -> Place:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = round(shutil.disk_usage(existing).free / GB, 1)
    return Place(str(folder), folder.exists(), os.access(existing, os.W_OK), free)


def shared_memory() -> dict[str, float] | None:
    """Return the shared memory that loader processes pass batches through; None where the system
    has no such folder.
    """
    if not _SHARED.is_dir():
        return None
    usage = shutil.disk_usage(_SHARED)
    return {"total_gb": round(usage.total / GB, 1), "free_gb": round(usage.free / GB, 1)}


def shared_memory_remark(found: dict[str, float] | None) -> str:
    """Return what to do about too little shared memory; empty where there is enough."""
    if found is None or found["free_gb"] >= _ENOUGH_SHARED:
        return ""
    return (
        f"{found['free_gb']} GB of shared memory are free, which is little for loader processes: "
        "make it larger (docker run --shm-size 8g), or load without them (--workers 0)"
    )
