"""Checks of commands."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunet_core.testing.check import Subject, check, require
from nnunet_core.testing.files import contents


@check("command")
def command_documents_itself(subject: Subject) -> None:
    """The function has a docstring, and every argument and option a line of help."""
    function = subject.component.load()
    require(inspect.getdoc(function), "The function has no docstring: --help has nothing to say.")
    command = _command(subject)
    silent = [
        " ".join(parameter.opts)
        for parameter in command.params
        if not getattr(parameter, "help", None) and not getattr(parameter, "hidden", False)
    ]
    require(not silent, f"There is no help for {', '.join(silent)}. Use Annotated[..., Option()].")


@check("command")
def command_shows_its_help(subject: Subject) -> None:
    """`--help` names every option, ends with exit code 0 and does nothing else."""
    code, text = _run(subject, "--help")
    require(code == 0, f"--help ends with exit code {code}: {text.strip()[-300:]}")
    names = [name for p in _command(subject).params for name in p.opts if name.startswith("--")]
    absent = [name for name in names if name not in text]
    require(not absent, f"--help does not name {', '.join(absent)}.")


@check("command")
def command_refuses_unknown_options(subject: Subject) -> None:
    """An option that does not exist ends with exit code 2, before anything is written."""
    code, _ = _run(subject, "--no-such-option")
    require(code == 2, f"--no-such-option ends with exit code {code}; it must be 2.")


def _command(subject: Subject) -> Any:
    """Return the command as typer makes it of the function."""
    import typer

    return typer.main.get_command(_app(subject))


def _app(subject: Subject) -> Any:
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(subject.component.load())
    return app


def _run(subject: Subject, argument: str) -> tuple[int, str]:
    """Run the command in an empty folder; return its exit code and what it printed.

    Raises:
        CheckError: It wrote something.
    """
    from typer.testing import CliRunner

    with _inside(subject.folder):
        # wide, so that no name of an option is broken
        done = CliRunner().invoke(_app(subject), [argument], env={"COLUMNS": "400"})
    written = list(contents(subject.folder))
    require(not written, f"{argument} writes {', '.join(written)}.")
    raised = done.exception is None or isinstance(done.exception, SystemExit)
    require(raised, f"{argument} raises {type(done.exception).__name__}: {done.exception}")
    return done.exit_code, done.output


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
