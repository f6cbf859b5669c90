"""Entry point: build the app, run a command, turn errors into one message and an exit code.

Processes that prepare cases import this module too; so it imports what a command needs only to run
one.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from nnunet_core.registry.discovery import Registry

_SAFE_PATH = "PYTHONSAFEPATH"
#: How often a waiting compute thread of GNU OpenMP looks before it sleeps: a tenth of a millisecond
_LOOKS = "10000"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed work, 2 wrong usage."""
    from nnunet_cli.app import build_app
    from nnunet_cli.logs import streams_restored
    from nnunet_core.errors import NnunetError, StoppedError
    from nnunet_core.registry.discovery import Registry
    from nnunet_core.runtime.collecting import collector_rests
    from nnunet_core.runtime.signals import Stopped, stopped_by_signals

    atexit.register(gc.freeze)  # nothing is looked through at the end: 0.2 s with PyTorch
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    _open_streams()
    registry = None
    with streams_restored(), stopped_by_signals(), _own_environment():
        if not debug:
            _quieten_libraries()
        _let_threads_sleep()
        try:
            rest, denied = _take_no_plugin([word for word in given if word != "--debug"])
            _block(denied)
            with collector_rests():  # what is imported stays
                registry = Registry.discover()
                app = build_app(registry, rest)
            try:
                app(rest, prog_name="nnunet", obj=registry)
            finally:
                sys.stdout.flush()
        except StoppedError as stop:
            _end(stop.exit_code, f"stopped: {stop}")
        except NnunetError as error:
            place = _place(error, registry)
            raised = f"\nIt was raised in {place}." if place else ""
            _end(error.exit_code, f"error: {error}{raised}", debug)
        except (Stopped, KeyboardInterrupt) as stop:
            number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
            _end(128 + number, "stopped; the same command goes on where it stopped.")
        except Exception as error:  # noqa: BLE001 (whatever it is, the user gets one message)
            _end(1, _unforeseen(error, registry), debug)


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Undo what a command sets in the environment for the processes that it starts: a program may
    run several commands.

    They import nothing from the current folder, where files of strangers may lie: Python would
    look there first (3.11 and later can be told not to).
    """
    before = dict(os.environ)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _quieten_libraries() -> None:
    """Leave out the warnings of libraries, which users cannot act on; --debug and PYTHONWARNINGS
    show them.
    """
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", append=True)
        os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of processes that are started
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _let_threads_sleep() -> None:
    """Let compute threads that wait give their core away, unless the user decides: by default they
    hold it for longer than a step takes, and each other's work waits for them where a machine has
    more to do than cores. Read when PyTorch is loaded, also by processes that are started.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = _LOOKS


def _open_streams() -> None:
    """Give a command the standard streams that it was started without, and names of files that no
    encoding of a terminal can refuse.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # else the next file that is opened would be in its place
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, "r" if number == 0 else "w"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unforeseen(error: Exception, registry: Registry | None) -> str:
    """Return the message of an error that nothing expected: its cause outside, or a defect."""
    from nnunet_cli.causes import outside_cause

    if isinstance(error, OSError) and error.filename is None and (problem := _broken_output()):
        if problem.errno == errno.EPIPE:  # as under `| head`: who reads has enough
            return ""
        return f"error: standard output cannot be written: {os.strerror(problem.errno or 0)}."
    if cause := outside_cause(error):
        return f"error: {cause}"
    place = _place(error, registry)
    whose = f"It was raised in {place}" if place else "This is a defect of the software"
    return (
        f"error: unexpected {type(error).__name__}: {error}\n{whose}; run the command again with "
        "--debug and report what it prints."
    )


def _place(error: Exception, registry: Registry | None) -> str:
    from nnunet_cli.blame import place_of

    return "" if registry is None else place_of(error, registry)


def _broken_output() -> OSError | None:
    """Return why standard output cannot be written, or None; what it still holds is dropped."""
    try:
        print(flush=True)  # noqa: T201 (only writing tells)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _end(code: int, text: str, trace: bool = False) -> NoReturn:
    """Say why, and exit; one of several processes ends at once, since what PyTorch tidies up would
    wait for the others, or crash.
    """
    from nnunet_core.errors import printable
    from nnunet_core.runtime.processes import in_several_processes

    with contextlib.suppress(OSError):
        if trace:
            traceback.print_exc()
        if text:
            print(printable(text), file=sys.stderr, flush=True)  # noqa: T201
    if in_several_processes():
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _take_no_plugin(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split `--no-plugin NAME` off, wherever it stands: it acts before plugins, and so before
    commands, exist.
    """
    rest: list[str] = []
    denied: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument == "--no-plugin":
            denied.append(next(pending, ""))
        elif argument.startswith("--no-plugin="):
            denied.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    return rest, denied


def _block(plugins: list[str]) -> None:
    """Block plugins in this process and in all that it starts: what lies in the environment reaches
    every worker.
    """
    from nnunet_core.registry.discovery import DENY_VARIABLE

    if plugins:
        os.environ[DENY_VARIABLE] = ",".join([os.environ.get(DENY_VARIABLE, ""), *plugins])
