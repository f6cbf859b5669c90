"""What every command does: v1's environment variables, calls of `nnunet`, errors as one message."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from nnunet_core.errors import NnunetError, UsageError, nearest
from nnunet_core.stages.dataset import is_named
from nnunet_core.store.workspace import Workspace

#: Settings that are added to every plan and training, e.g. "trainer.epochs=2".
SETTINGS = "NNUNET_V1_SETTINGS"
CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
RAW, PREPROCESSED, RESULTS = "nnUNet_raw_data_base", "nnUNet_preprocessed", "RESULTS_FOLDER"
PROCESSES, WORKERS = "nnUNet_def_n_proc", "nnUNet_n_proc_DA"
_OTHERS = ("NNUNET_WORKSPACE", "nnUNet_raw", "nnUNet_results")  # would win over v1's


def run(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
    needs: Sequence[str] = (RAW, PREPROCESSED, RESULTS),
) -> None:
    """Parse arguments and work; an error is one message, and exit code 1 or 2.

    Args:
        parser: Of the command.
        work: What it does.
        arguments: Of the command; None takes those of the process.
        needs: Environment variables that must be set.
    """
    options = parser.parse_args(arguments)
    for name in _OTHERS:
        os.environ.pop(name, None)
    try:
        if missing := [name for name in needs if not os.environ.get(name)]:
            raise UsageError(
                f"{parser.prog} needs the environment variable {missing[0]}, the folder of v1's "
                f"layout. Set it, for example: export {missing[0]}=/data/nnUNet"
            )
        work(options)
    except NnunetError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def nnunet(*words: object) -> None:
    """Say which command of `nnunet` this is, and run it in this process.

    Raises:
        SystemExit: It failed.
    """
    from nnunet_cli.main import main

    line = [str(word) for word in words]
    typer.echo(f"+ nnunet {shlex.join(line)}", err=True)
    before, sys.argv = sys.argv, ["nnunet", *line]  # `train --gpus` starts itself again
    try:
        main(line)
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.argv = before


def note(text: str) -> None:
    """Say what a flag means here."""
    typer.echo(f"note: {text}", err=True)


def workspace() -> Workspace:
    """Return v1's folders."""
    return Workspace.find()


def settings(planner: bool = True) -> list[str]:
    """Return the options that NNUNET_V1_SETTINGS adds.

    Args:
        planner: With those of the planner, which plans of another task have no use for.
    """
    found = shlex.split(os.environ.get(SETTINGS, ""))
    wanted = [setting for setting in found if planner or not setting.startswith("planner.")]
    return [word for setting in wanted for word in ("--set", setting)]


def processes(given: int | None) -> list[str]:
    """Return --processes of a flag, else of nnUNet_def_n_proc."""
    number = given or os.environ.get(PROCESSES)
    return ["--processes", str(number)] if number else []


def task_name(reference: str) -> str:
    """Return the name of a task by its name or id, from v1's folders of any kind.

    Raises:
        UsageError: There is none, or more than one.
    """
    space = workspace()
    places = [space.raw, space.preprocessed, space.results]
    places += [space.results / "nnUNet" / name for name in CONFIGURATIONS]
    known = {p.name for place in places if place.is_dir() for p in place.iterdir() if p.is_dir()}
    found = sorted(name for name in known if is_named(name, reference))
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"'{reference}' names more than one task: {', '.join(found)}.")
    tasks = sorted(name for name in known if name.startswith(("Task", "Dataset")))
    raise UsageError(
        f"There is no task '{reference}' in {space.raw}, {space.preprocessed} or {space.results}."
        f"{nearest(reference, tasks)} Tasks: {', '.join(tasks) or 'none'}."
    )


def v1_results() -> Path:
    """Return RESULTS_FOLDER/nnUNet, where v1 keeps its models."""
    return workspace().results / "nnUNet"
