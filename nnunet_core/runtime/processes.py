"""What `torchrun` says about this process: which of several it is that train together."""

from __future__ import annotations

import os


def in_several_processes() -> bool:
    """Return whether `torchrun` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def distributed_rank() -> int:
    """Return the number of this process among those that `torchrun` started; 0 is the one that
    writes and reports.
    """
    return int(os.environ.get("RANK", "0"))
