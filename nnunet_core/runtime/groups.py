"""Control groups of Linux: what a container or a job of a cluster may use of its machine."""

from __future__ import annotations

import math
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def folders(controller: str) -> list[Path]:
    """Return the folders of the groups that this process is in, and of those around them, which
    limit it as well.

    Args:
        controller: "memory" or "cpu".
    """
    try:
        rows = _MEMBERSHIP.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for row in rows:
        _, kinds, path = row.split(":", 2)
        if not kinds or controller in kinds.split(","):  # version 2, or version 1
            root = _ROOT / kinds
            inside = root / path.strip("/")
            # a container may see its own group as the root, and another path in its membership
            around = [inside, *inside.parents] if inside.is_dir() else [root]
            found += [folder for folder in around if folder.is_relative_to(root)]
    return found


def cores() -> int | None:
    """Return how many CPU cores the groups of this process may keep busy; None without a limit."""
    limits = [limit for folder in folders("cpu") if (limit := _cores_in(folder)) is not None]
    return min(limits, default=None)


def _cores_in(group: Path) -> int | None:
    """Return the quota of one group as cores, rounded up: one and a half can be used by two
    threads.
    """
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            texts = [(group / name).read_text(encoding="ascii") for name in names]
            quota, period = (int(number) for number in " ".join(texts).split())
        except (OSError, ValueError):  # "max" is no number
            continue
        if quota > 0 and period > 0:  # -1 is no limit
            return math.ceil(quota / period)
    return None
