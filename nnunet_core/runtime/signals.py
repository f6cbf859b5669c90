"""What Ctrl-C and SIGTERM (batch systems, torchrun) do, in every process of ours.

A command raises `Stopped` where it works, so that locks and temporary files are removed on the way
out; a Ctrl-C after that ends it where it is. A training takes them as a request instead, and stops
where it can save everything; a second Ctrl-C does what it does outside of the training. A process
that works for another one leaves Ctrl-C, which a terminal sends to both, to that one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
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
    """Let the first signal raise `Stopped` while the block runs, and a Ctrl-C after it end the
    process.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        with _handled(_stop):
            yield
    finally:
        _restore(before)


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
    signal.signal(signal.SIGINT, _end_now)
    raise Stopped(number)


def _end_now(number: int, _frame: FrameType | None) -> NoReturn:
    """End without cleaning up: locks end with the process, a later run removes half files."""
    started = sys.modules.get("multiprocessing")  # importing it takes time that no command has
    for child in started.active_children() if started else ():
        child.kill()
    with contextlib.suppress(OSError):
        os.write(2, b"stopped at once; the same command goes on where it stopped.\n")
    os._exit(128 + number)


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
    finally:  # what a signal has set stays: a second one must not be a first one again
        _restore({n: old for n, old in before.items() if signal.getsignal(n) == handle})


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
