"""What Ctrl-C and SIGTERM (batch systems, torchrun) do, in every process of ours.

A command raises `Stopped` where it works, so that locks and temporary files are removed on the way
out. A training takes them as a request instead, and stops where it can save everything; a second
Ctrl-C does what it does outside of the training. A process that works for another one leaves
Ctrl-C, which a terminal sends to both, to that one.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal ended the work; Typer would turn a KeyboardInterrupt into an exit without a word.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class StopRequest:
    """Whether somebody asked to stop: the first signal that did, or None."""

    signal: signal.Signals | None = None


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let signals raise `Stopped` while the block runs."""
    with _handled(_stop):
        yield


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take signals as requests while the block runs; the second Ctrl-C goes to the handler outside
    of it.
    """
    request, outside = StopRequest(), signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        if request.signal is None:
            request.signal = signal.Signals(number)
        elif number == signal.SIGINT and callable(outside):
            outside(number, frame)

    with _handled(note):
        yield request


def leave_interrupts_to_parent(seconds_to_live: int = 0) -> None:
    """Ignore Ctrl-C from now on. With `seconds_to_live`, SIGTERM ends this process only so much
    later, where that exists.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if seconds_to_live and hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(seconds_to_live))


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    # Batch systems may send several; what is left to do is cleaning up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped(number)


@contextlib.contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals while the block runs; Python lets the main thread alone do so, in others
    nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
