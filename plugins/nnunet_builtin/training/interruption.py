"""Stop a training between two iterations when the user or the batch system asks for it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody asked to stop.

    Attributes:
        signal: The signal that asked, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take Ctrl-C and SIGTERM (batch systems) as requests while the block runs; a second Ctrl-C ends it at once.

    In a thread that is not the main one signals are left alone.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if request.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = request.signal or signal.Signals(
            number
        )  # batch systems and torchrun may send several

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
