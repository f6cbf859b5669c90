"""How much memory there is, and what does not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from nnunet_core.errors import ImageError
from nnunet_core.runtime import groups

GB = 1e9


def available() -> int:
    """Return the memory in bytes that may still be used: of the machine, or of the container, the
    job or this process (`ulimit -v`) if that is less.
    """
    machine = int(psutil.virtual_memory().available)
    return max(0, min([machine, *_group_free(), *_process_free()]))


def check_fits(path: Path, size: int) -> None:
    """Refuse an image of `size` bytes that would fill the memory.

    Raises:
        ImageError: It is larger than half of the memory that is available; work on it needs several
            copies.
    """
    if size > 1 << 28 and size > available() / 2:
        raise ImageError(
            f"The image {path} holds {size / GB:.1f} GB of voxels, {available() / GB:.1f} GB of "
            "memory are free; a case needs at least twice its size. Is the file what it should be? "
            "Otherwise use a machine with more memory."
        )


def _process_free() -> list[int]:
    """Return what the limits of this process leave of its address space and of its data."""
    if sys.platform == "win32":
        return []
    import resource

    used = psutil.Process().memory_info()
    sizes = {resource.RLIMIT_AS: used.vms, resource.RLIMIT_DATA: getattr(used, "data", 0)}
    limits = {kind: resource.getrlimit(kind)[0] for kind in sizes}
    return [
        limit - sizes[kind] for kind, limit in limits.items() if limit != resource.RLIM_INFINITY
    ]


def _group_free() -> list[int]:
    """Return what the control groups of Linux that this process is in leave; file caches count as
    free.
    """
    found = [_free_in(folder) for folder in groups.folders("memory")]
    return [free for free in found if free is not None]


def _free_in(group: Path) -> int | None:
    """Return what one control group leaves, or None without a limit."""
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, used = (
                int((group / name).read_text(encoding="ascii")) for name in (limit, usage)
            )
            text = (group / "memory.stat").read_text(encoding="ascii")
        except (OSError, ValueError):  # "max" is no number
            continue
        reclaimable = dict(line.split() for line in text.splitlines()).get(cache, 0)
        return max(0, most - used + int(reclaimable))
    return None
