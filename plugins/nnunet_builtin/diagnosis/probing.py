"""Try to import every component of other packages, in a process of its own: one of them may hang,
or take the process with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from nnunet_core.errors import NnunetError, RenamedWarning
from nnunet_core.registry.discovery import Registry

#: (kind, full reference) of a component.
Named = tuple[str, str]
_START_SECONDS = 120


@dataclass(frozen=True)
class Probe:
    """What importing the target of a component led to.

    Attributes:
        kind, reference: Of the component.
        seconds: That it took.
        error: Why it cannot be imported; empty where it can.
        warnings: About names of the core that go away.
    """

    kind: str
    reference: str
    seconds: float
    error: str = ""
    warnings: tuple[str, ...] = ()


def probe(named: Sequence[Named], limit: float) -> Iterator[Probe]:
    """Import the targets of components, one after the other, and yield what came of each.

    Args:
        named: The components.
        limit: Seconds for each; what takes longer is given up.
    """
    rest = list(named)
    while rest:
        with _started(rest) as (process, results):
            found = _received(process, results, _START_SECONDS)
            if isinstance(found, str):
                for each in rest:
                    yield Probe(*each, 0.0, f"it was not tried, since at the start {found}")
                return
            while rest and isinstance(found := _received(process, results, limit), Probe):
                yield found
                rest.pop(0)
            if rest:  # this process is lost; another one takes what is left
                yield Probe(*rest.pop(0), limit, str(found))


@contextlib.contextmanager
def _started(named: Sequence[Named]) -> Iterator[tuple[BaseProcess, Connection]]:
    context = multiprocessing.get_context("spawn")
    results, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sending, tuple(named)), daemon=True)
    process.start()
    sending.close()
    try:
        yield process, results
    finally:
        process.kill()
        process.join()
        results.close()


def _received(process: BaseProcess, results: Connection, limit: float) -> Probe | str | None:
    """Return the next result, None for a process that has started, or why there is nothing."""
    try:
        if results.poll(limit):
            found: Probe | None = results.recv()
            return found
    except EOFError:
        process.join()
        return f"its import ended the process (exit code {process.exitcode})"
    return f"its import did not end within {limit:g} s"


def _work(sending: Connection, named: Iterable[Named]) -> None:
    """Import the targets of components in this process; what they print is dropped."""
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401  (else its seconds would be those of the first one)
    registry = Registry.discover()
    sending.send(None)  # it has started
    for kind, reference in named:
        sending.send(_tried(registry, kind, reference))


def _tried(registry: Registry, kind: str, reference: str) -> Probe:
    started, error = time.perf_counter(), ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RenamedWarning)
        try:
            registry.resolve(kind, reference).load()
        except NnunetError as raised:
            error = str(raised)
    seconds = time.perf_counter() - started
    renamed = (str(each.message) for each in caught if issubclass(each.category, RenamedWarning))
    return Probe(kind, reference, seconds, error, tuple(dict.fromkeys(renamed)))
