"""Python's collector of cycles, and when it has nothing to find."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def collector_rests() -> Iterator[None]:
    """Let the collector rest while many objects are made that all stay: it would walk over them
    again and again, a fifth of the time of a rerun with 20,000 cases. A decorator, too. Only the
    main thread lets it rest: it is one for all threads.
    """
    with _collector(on=False):
        yield


@contextlib.contextmanager
def collector_works() -> Iterator[None]:
    """Let the collector work, also where it rests otherwise."""
    with _collector(on=True):
        yield


@contextlib.contextmanager
def _collector(on: bool) -> Iterator[None]:
    # of two threads that overlap, the later one would find it at rest and leave it so for good
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        yield
    finally:
        (gc.enable if before else gc.disable)()
