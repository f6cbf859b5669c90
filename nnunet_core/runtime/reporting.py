"""How the core tells what it does: a protocol; the command line prints, a library user may
listen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Tracker(Protocol):
    """One long piece of work that is counted in steps."""

    def advance(self, steps: int = 1, detail: str | None = None) -> None:
        """Report `steps` more as done; `detail` replaces the text behind the bar."""
        ...


class Reporter(Protocol):
    """Where the core reports to."""

    def message(self, text: str) -> None:
        """Say something that the user should read."""
        ...

    def warning(self, text: str) -> None:
        """Say something that the user should act on, though the work goes on."""
        ...

    def track(
        self, title: str, total: int, done: int = 0
    ) -> contextlib.AbstractContextManager[Tracker]:
        """Start a piece of work of `total` steps, `done` of which were done before."""
        ...


class Silence:
    """A reporter that says nothing: the default of the library functions."""

    def message(self, text: str) -> None:
        """Ignore."""

    def warning(self, text: str) -> None:
        """Ignore."""

    def advance(self, steps: int = 1, detail: str | None = None) -> None:
        """Ignore."""

    @contextlib.contextmanager
    def track(self, title: str, total: int, done: int = 0) -> Iterator[Tracker]:  # noqa: ARG002
        """Count nothing."""
        yield self
