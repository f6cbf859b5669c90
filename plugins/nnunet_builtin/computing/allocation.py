"""Memory that a computation frees is kept for its next step."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

# mallopt(3): parameters of glibc's malloc, what they are during a computation, and afterwards.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_NEVER, _MIB = -1, 2**20
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: 64 * _MIB}
_USUAL = {
    _MMAP_MAX: 65536,
    _MMAP_THRESHOLD: 32 * _MIB,
    _TRIM_THRESHOLD: 64 * _MIB,
    _TOP_PAD: 128 * 1024,
}


def keep_freed_memory() -> None:
    """Let malloc keep what this process frees from now on; glibc only, elsewhere nothing happens.

    A training step allocates and frees the same large tensors each time. By default each of them is
    mapped and unmapped, and the system clears its pages anew: a tenth of a step on CPU.
    """
    _set(_glibc(), _KEEPING)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed inside the block, and give it back to the system at the end."""
    keep_freed_memory()
    try:
        yield
    finally:
        _set(_glibc(), _USUAL)
        give_freed_memory_back()


def give_freed_memory_back() -> None:
    """Let the system have what was freed until now: kept pieces of other sizes than those that are
    needed next add up.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _set(library: Any, values: dict[int, int]) -> None:
    if library is not None:
        for parameter, value in values.items():
            library.mallopt(parameter, value)


def _glibc() -> Any:
    """Return the C library if it has glibc's mallopt, else None."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
