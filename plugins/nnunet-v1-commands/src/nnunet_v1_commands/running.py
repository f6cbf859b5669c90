"""What every command does: v1's environment variables, calls of `nnunet`, errors as one message."""

from __future__ import annotations

import argparse
import contextlib
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
_PREPARING = (  # which v1 needs the raw data for, too
    "nnUNet_convert_decathlon_task",
    "nnUNet_plan_and_preprocess",
    "nnUNet_plot_task_pngs",
)
PROCESSES, WORKERS = "nnUNet_def_n_proc", "nnUNet_n_proc_DA"
_WHY_RAW = (
    "Unlike v1, it is needed for a task that is preprocessed, too: training and selection compare "
    "with the label maps there, and check that the data are those that were preprocessed."
)
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
            raise UsageError(_missing(parser.prog, missing[0]))
        work(options)
        sys.stdout.flush()
    except NnunetError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # as under `| head`: who reads has enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _missing(command: str, name: str) -> str:
    """Say what to set an environment variable to, and why."""
    what = {
        RAW: "the folder that holds nnUNet_raw_data/TaskXXX_NAME, the images and label maps",
        PREPROCESSED: "the folder of plans and preprocessed cases",
        RESULTS: "the folder of trained models",
    }[name]
    why = "" if name != RAW or command in _PREPARING else f" {_WHY_RAW}"
    example = f"export {name}=/data/{name}"
    return f"{command} needs the environment variable {name}, {what}.{why} Set it: {example}"


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


def task_with_data(reference: str) -> str:
    """Return the name of a task whose raw data are there.

    Raises:
        UsageError: There is none, or more than one; or its raw data are not there.
    """
    task, raw = task_name(reference), workspace().raw
    if not (raw / task).is_dir():
        raise UsageError(
            f"The raw data of {task} are not in {raw}, which the environment variable {RAW} "
            f"says. {_WHY_RAW} Set it to the folder that holds nnUNet_raw_data/{task}, or put the "
            "data there."
        )
    return task


def v1_results() -> Path:
    """Return RESULTS_FOLDER/nnUNet, where v1 keeps its models."""
    return workspace().results / "nnUNet"
