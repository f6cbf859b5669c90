"""Entry point: build the app, run a command, turn errors into one message and an exit code.

Processes that prepare cases import this module too; so it imports what a command needs only to run
one.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from nnunet_core.registry.discovery import Registry


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed work, 2 wrong usage."""
    from nnunet_cli.app import build_app
    from nnunet_core.errors import NnunetError, StoppedError
    from nnunet_core.registry.discovery import Registry
    from nnunet_core.runtime.signals import Stopped, stopped_by_signals

    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    registry = None
    try:
        rest, denied = _take_no_plugin([argument for argument in given if argument != "--debug"])
        _block(denied)
        registry = Registry.discover()
        with stopped_by_signals():
            build_app(registry, rest)(rest, prog_name="nnunet", obj=registry)
    except StoppedError as stop:
        print(f"stopped: {stop}", file=sys.stderr)  # noqa: T201
        _end(stop.exit_code)
    except NnunetError as error:
        if debug:
            traceback.print_exc()
        place = _place(error, registry)
        raised = f"\nIt was raised in {place}." if place else ""
        print(f"error: {error}{raised}", file=sys.stderr)  # noqa: T201
        _end(error.exit_code)
    except (Stopped, KeyboardInterrupt) as stop:
        print("stopped; the same command goes on where it stopped.", file=sys.stderr)  # noqa: T201
        _end(128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT))
    except Exception as error:  # noqa: BLE001 (whatever it is, the user gets one message)
        if debug:
            traceback.print_exc()
        print(f"error: {_unforeseen(error, registry)}", file=sys.stderr)  # noqa: T201
        _end(1)


def _unforeseen(error: Exception, registry: Registry | None) -> str:
    place = _place(error, registry)
    whose = f"It was raised in {place}" if place else "This is a defect of the software"
    return (
        f"unexpected {type(error).__name__}: {error}\n{whose}; run the command again with --debug "
        "and report what it prints."
    )


def _place(error: Exception, registry: Registry | None) -> str:
    from nnunet_cli.blame import place_of

    return "" if registry is None else place_of(error, registry)


def _end(code: int) -> NoReturn:
    """Exit; one of several processes ends at once, since what PyTorch tidies up would wait for the
    others, or crash.
    """
    from nnunet_core.runtime.processes import in_several_processes

    if in_several_processes():
        sys.stdout.flush()
        sys.stderr.flush()
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
