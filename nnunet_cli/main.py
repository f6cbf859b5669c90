"""Entry point: build the app, run a command, turn errors into one message and an exit code.

Processes that prepare cases import this module too; so it imports what a command needs only to run one.
"""

from __future__ import annotations

import sys
import traceback


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed work, 2 wrong usage."""
    from nnunet_cli.app import build_app
    from nnunet_core.errors import NnunetError
    from nnunet_core.registry import Registry

    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        rest, denied = _take_no_plugin([argument for argument in given if argument != "--debug"])
        registry = Registry.discover(denied)
        build_app(registry, rest)(rest, prog_name="nnunet", obj=registry)
    except NnunetError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped.", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        print(  # noqa: T201
            f"error: unexpected {type(error).__name__}: {error}\n"
            "This is a defect of the software or of a plugin; run the command again with --debug and report what it prints.",
            file=sys.stderr,
        )
        sys.exit(1)


def _take_no_plugin(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split `--no-plugin NAME` off, wherever it stands: it acts before plugins, and so before commands, exist."""
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
