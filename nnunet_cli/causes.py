"""What an error from outside means: the machine, the disk, the memory, the user's rights."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_AGAIN = "then run the same command again; what is finished is kept."
_FULL = f"There is no space left. Free some, {_AGAIN}"
_RIGHTS = "This user may not do that. Change the rights, or choose another folder."
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "It cannot be written to. Choose another folder, or mount it for writing.",
    errno.ENAMETOOLONG: "Use shorter names: file systems allow about 250 characters a name.",
    errno.ENOENT: f"It was there or should be; bring it back, {_AGAIN}",
    errno.EMFILE: f"Allow more open files (ulimit -n), {_AGAIN}",
    errno.ENFILE: f"Close other programs, {_AGAIN}",
    errno.EIO: f"The disk or the network failed. See to it, {_AGAIN}",
    errno.ESTALE: f"The network disk was lost. Mount it again, {_AGAIN}",
    errno.EAGAIN: f"Allow more processes (ulimit -u), {_AGAIN}",
}
_MEMORY = (
    "The memory is full{detail}. Use fewer processes (--processes 1), loaders (--workers 0) or a "
    f"smaller batch, free memory or raise its limit (ulimit -v, that of the job), {_AGAIN}"
)
_MEMORY_WORDS = (
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad allocation",
    "bad_alloc",
    "unable to allocate",
)
_SHARED_WORDS = ("shared memory", "/torch_", "/dev/shm")
_SHARED = (
    "Processes cannot share memory: {detail}. Make /dev/shm writable and larger (docker: "
    "--shm-size), or do without: --workers 0, --processes 1."
)


def outside_cause(error: BaseException) -> str | None:
    """Return one message for an error whose cause lies outside of the software, or None."""
    for part in _chain(error):
        text = str(part)
        if any(word in text for word in _SHARED_WORDS) and isinstance(part, OSError | RuntimeError):
            return _SHARED.format(detail=text.strip().splitlines()[0])
        if isinstance(part, MemoryError) or any(word in text.lower() for word in _MEMORY_WORDS):
            return _MEMORY.format(detail=f": {text.splitlines()[0]}" if text else "")
        if "can't start new thread" in text:
            return f"No further thread can be started. {_ADVICE[errno.EAGAIN]}"
        if isinstance(part, OSError) and part.errno is not None:
            return _of_system(part, part.errno)
    return None


def _of_system(error: OSError, number: int) -> str:
    place = f"{error.filename}: " if error.filename is not None else ""
    if number == errno.ENOMEM:
        return _MEMORY.format(detail=f": {place}{os.strerror(number)}")
    advice = _ADVICE.get(number, f"See to it, {_AGAIN}")
    return f"{place}{os.strerror(number)}. {advice}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    part: BaseException | None = error
    while part is not None:
        yield part
        part = part.__cause__ or (None if part.__suppress_context__ else part.__context__)
