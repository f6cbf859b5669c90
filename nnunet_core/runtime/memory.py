"""How much memory there is, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import psutil

from nnunet_core.errors import ImageError

_GROUP = Path("/sys/fs/cgroup")
GB = 1e9


def available() -> int:
    """Return the memory in bytes that may still be used: of the machine, or of the container or job
    if that is less.
    """
    limits = [int(psutil.virtual_memory().available)]
    group = _group_free()
    return min(limits if group is None else [*limits, group])


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


def _group_free() -> int | None:
    """Return what a control group of Linux leaves, or None without a limit; file caches count as
    free.
    """
    try:
        limit, used = (
            int((_GROUP / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        rows = dict(
            line.split()
            for line in (_GROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        )
        return max(0, limit - used + int(rows.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
