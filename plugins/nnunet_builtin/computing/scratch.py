"""Large arrays for a while: in memory, or in a temporary file where they do not fit."""

from __future__ import annotations

import math
import mmap
import shutil
import tempfile
from collections.abc import Sequence

import numpy as np
import psutil

from nnunet_core.errors import TrainingError
from nnunet_core.runtime.memory import GB, available

_USUAL_GB = 10
_RESERVE = 1 << 28


class Scratch:
    """A float32 array of zeros; on disk it takes no memory beyond what was touched since `release`.

    The file has no name and is gone with the array. It lies where `tempfile` puts files: TMPDIR.

    Attributes:
        array: The array.
        on_disk: Whether it is in a file.
    """

    def __init__(self, shape: Sequence[int], on_disk: bool) -> None:
        self.on_disk = on_disk
        self._map: mmap.mmap | None = None
        if not on_disk:
            self.array = np.zeros(shape, np.float32)
            return
        size = 4 * math.prod(shape)
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self.array = np.frombuffer(self._map, np.float32).reshape(shape)

    def release(self) -> None:
        """Let the system keep what was touched in its file cache, not in this process."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)  # of a shared map: nothing is lost


def budget(memory_gb: float | None) -> int:
    """Return the bytes that this process may fill: what was asked for, or 10 GB, or what is free if
    that is less.
    """
    if memory_gb is not None:
        return int(memory_gb * GB)
    return min(int(_USUAL_GB * GB), resident() + available())


def resident() -> int:
    """Return the bytes that this process fills."""
    return int(psutil.Process().memory_info().rss)


def fits(size: int, beside: int, memory_gb: float | None) -> bool:
    """Return whether `size` bytes fit in memory, where another `beside` bytes will be needed.

    Raises:
        TrainingError: They do not, and the disk of temporary files is too small, too.
    """
    most = budget(memory_gb)
    free = most - resident() - beside
    if size <= free:
        return True
    check_disk(
        size,
        f" Of the {most / GB:.1f} GB of memory that may be filled (--memory-gb), "
        f"{max(free, 0) / GB:.1f} GB are left.",
    )
    return False


def check_disk(size: int, memory: str = "") -> None:
    """Raise TrainingError where the disk of temporary files has no place for so many bytes.

    Args:
        size: Bytes.
        memory: A sentence on the memory, which has no place for them either.
    """
    place = tempfile.gettempdir()
    disk = shutil.disk_usage(place).free
    if size > disk - _RESERVE:
        raise TrainingError(
            f"The case takes {size / GB:.1f} GB while its windows are joined.{memory} {place}, "
            f"where temporary files lie, has {disk / GB:.1f} GB. Allow more memory, set TMPDIR to "
            "a folder on a larger disk, or predict fewer folds at once."
        )
