"""Progress for people: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from nnunet_cli.logs import Copied
from nnunet_core.errors import printable
from nnunet_core.runtime.reporting import Reporter, Tracker

#: Seconds between two plain lines of one piece of work whose text did not change.
_PLAIN_INTERVAL = 30.0


def make_reporter(quiet: bool = False) -> Reporter:
    """Return bars when stderr is a terminal, plain lines otherwise; with `quiet`, warnings only."""
    console = _console(cast("TextIO", _Lasting(sys.stderr)))
    if quiet or not console.is_terminal:
        return PlainReporter(console, quiet)
    if not isinstance(sys.stderr, Copied):
        return BarReporter(console)
    bars = BarReporter(_console(cast("TextIO", _Lasting(sys.stderr.stream))))
    return Both(bars, PlainReporter(_console(cast("TextIO", _Lasting(sys.stderr.log)))))


class _Lasting:
    """A stream that what happens to a terminal or a full disk cannot end: the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose what is left."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Console(Console):
    """Prints text without what controls terminals."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects, texts as `errors.printable` shows them."""
        shown = (printable(each) if isinstance(each, str) else each for each in objects)
        super().print(*shown, **options)


def _console(file: TextIO, **options: Any) -> Console:
    """Return a console that prints text as it is: names of files may look like Rich's markup."""
    return _Console(file=file, highlight=False, markup=False, emoji=False, **options)


class PlainReporter:
    """Writes lines: for logs, notebooks and batch systems."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet

    def message(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            self.console.print(text, soft_wrap=True)

    def warning(self, text: str) -> None:
        """Print a line marked as a warning."""
        self.console.print(f"warning: {text}", soft_wrap=True)

    @contextlib.contextmanager
    def track(self, title: str, total: int, done: int = 0) -> Iterator[Tracker]:
        """Print a line at the start, when the detail changes after a while, and at the end."""
        tracker = _PlainTracker(self, title, total, done)
        tracker.say("")
        yield tracker
        tracker.say("done" if tracker.done >= total else "")


class _PlainTracker:
    def __init__(self, reporter: PlainReporter, title: str, total: int, done: int) -> None:
        self.reporter, self.title, self.total, self.done = reporter, title, total, done
        self.first, self.started, self.last = done, time.monotonic(), time.monotonic()

    def advance(self, steps: int = 1, detail: str | None = None) -> None:
        """Print when half a minute has passed, or when a training reports an epoch (no steps, a
        detail).
        """
        self.done += steps
        now = time.monotonic()
        if (steps == 0 and detail) or now - self.last > _PLAIN_INTERVAL:
            self.last = now
            self.say(detail or "")

    def say(self, detail: str) -> None:
        """Print title, count, time left and detail."""
        elapsed = time.monotonic() - self.started
        progressed = self.done - self.first
        left = elapsed / progressed * (self.total - self.done) if progressed else 0
        remaining = f"  {_clock(left)} left" if left > 1 else ""
        self.reporter.message(
            f"{self.title}: {self.done}/{self.total}{remaining}  {detail}".rstrip()
        )


class BarReporter:
    """Draws one bar per piece of work."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def message(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, soft_wrap=True)

    def warning(self, text: str) -> None:
        """Print a line marked as a warning."""
        self.console.print(
            Text.assemble(("warning:", "yellow"), f" {printable(text)}"), soft_wrap=True
        )

    @contextlib.contextmanager
    def track(self, title: str, total: int, done: int = 0) -> Iterator[Tracker]:
        """Draw a bar with count, time used, time left and the detail."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        with Progress(*columns, console=self.console, refresh_per_second=4) as progress:
            task = progress.add_task(title, total=total, completed=done, detail="")

            class _Bar:
                def advance(self, steps: int = 1, detail: str | None = None) -> None:
                    progress.update(task, advance=steps)
                    if detail is not None:
                        progress.update(task, detail=printable(detail))

            yield _Bar()


@dataclass(frozen=True)
class Both:
    """Two reporters that say the same: bars on the terminal, and plain lines in the log."""

    first: Reporter
    second: Reporter

    def message(self, text: str) -> None:
        """Say it twice."""
        self.first.message(text)
        self.second.message(text)

    def warning(self, text: str) -> None:
        """Say it twice."""
        self.first.warning(text)
        self.second.warning(text)

    @contextlib.contextmanager
    def track(self, title: str, total: int, done: int = 0) -> Iterator[Tracker]:
        """Count in both."""
        with (
            self.first.track(title, total, done) as first,
            self.second.track(title, total, done) as second,
        ):
            yield _BothTrackers(first, second)


@dataclass(frozen=True)
class _BothTrackers:
    first: Tracker
    second: Tracker

    def advance(self, steps: int = 1, detail: str | None = None) -> None:
        """Count in both."""
        self.first.advance(steps, detail)
        self.second.advance(steps, detail)


def out() -> Console:
    """Return the console for results on stdout; wide enough for paths when it is no terminal."""
    return _console(
        sys.stdout,
        soft_wrap=not sys.stdout.isatty(),
        width=None if sys.stdout.isatty() else 160,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
