"""The command line in this process: as a user's command, without the seconds that a new process
takes to import PyTorch.
"""

import contextlib
import io
from dataclasses import dataclass

from nnunet_cli.main import main


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def nnunet(*arguments):
    """Run `nnunet ARGUMENTS`; a training in it uses one thread, as the tests around it do."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
    return Done(code, out.getvalue(), err.getvalue())
