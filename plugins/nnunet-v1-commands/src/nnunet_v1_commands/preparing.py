"""`nnUNet_convert_decathlon_task`, `nnUNet_plan_and_preprocess`, `nnUNet_plot_task_pngs`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import typer

from nnunet_core.errors import UsageError, nearest
from nnunet_v1_commands.methods import (
    COPYING,
    PLANNERS,
    PRETRAINED,
    keep_plans,
    planner_options,
)
from nnunet_v1_commands.running import (
    CONFIGURATIONS,
    PREPROCESSED,
    RAW,
    nnunet,
    note,
    processes,
    run,
    settings,
    task_name,
    workspace,
)

_FLAT, *_VOLUMES = CONFIGURATIONS


def convert(arguments: Sequence[str] | None = None) -> None:
    """Convert a task of the decathlon to v1's layout."""
    parser = argparse.ArgumentParser("nnUNet_convert_decathlon_task", description=convert.__doc__)
    parser.add_argument("-i", required=True, type=Path, help="folder TaskXX_NAME")
    parser.add_argument("-p", type=int, help="processes")
    parser.add_argument("-output_task_id", type=int, help="id of the result, if another one")
    run(parser, _convert, arguments, [RAW])


def _convert(options: argparse.Namespace) -> None:
    words: list[object] = ["--to", "v1", "--overwrite", *processes(options.p)]
    if options.output_task_id is not None:
        words += ["--id", options.output_task_id]
    nnunet("dataset", "convert", options.i, *words)


def plan_and_preprocess(arguments: Sequence[str] | None = None) -> None:
    """Verify, plan and preprocess tasks."""
    parser = argparse.ArgumentParser(
        "nnUNet_plan_and_preprocess", description=plan_and_preprocess.__doc__
    )
    parser.add_argument("-t", "--task_ids", nargs="+", required=True, help="ids")
    parser.add_argument("-pl3d", "--planner3d", default="ExperimentPlanner3D_v21")
    parser.add_argument("-pl2d", "--planner2d", default="ExperimentPlanner2D_v21")
    parser.add_argument("-no_pp", action="store_true", help="plan only")
    parser.add_argument("-tl", type=int, help="processes for the low resolution")
    parser.add_argument("-tf", type=int, help="processes for everything else")
    parser.add_argument("--verify_dataset_integrity", action="store_true")
    parser.add_argument(
        "-overwrite_plans", type=Path, help=f"plans of another task, with -pl3d {COPYING}"
    )
    parser.add_argument("-overwrite_plans_identifier", help="name of these plans")
    run(parser, _plan_and_preprocess, arguments, [RAW, PREPROCESSED])


def _plan_and_preprocess(options: argparse.Namespace) -> None:
    _check_copying(options)
    plans = {"3d": _plans(options.planner3d), "2d": _plans(options.planner2d)}
    if options.overwrite_plans is not None:
        plans["3d"] = f"{PRETRAINED}{options.overwrite_plans_identifier}"
    if options.tl is not None:
        note("-tl: one number of processes is for all configurations: -tf")
    tasks = [task_name(task) for task in options.task_ids]
    pool = processes(options.tf)
    if options.verify_dataset_integrity:
        for task in tasks:
            nnunet("dataset", "verify", task, *pool)
    for task in tasks:
        if options.overwrite_plans is not None:
            keep_plans(task, str(plans["3d"]), options.overwrite_plans)
        for words, dimensions in _together(plans, task):
            if options.no_pp:
                nnunet("plan", task, *words, *pool)
                continue
            names = _planned(task, words)
            chosen = [name for name in names if _dimension(name) in dimensions]
            asked = [word for name in chosen for word in ("-c", name)]
            if asked:
                nnunet("preprocess", task, *words, *asked, *pool)


def _check_copying(options: argparse.Namespace) -> None:
    """Raise UsageError where one of the three flags of plans of another task is without the
    others.
    """
    identifier = options.overwrite_plans_identifier
    given = [options.overwrite_plans is not None, identifier is not None]
    given.append(options.planner3d == COPYING)
    if any(given) and not all(given):
        raise UsageError(
            f"Plans of another task need three flags together: -pl3d {COPYING} -overwrite_plans "
            "FILE -overwrite_plans_identifier ID."
        )
    if identifier is not None and not re.fullmatch(r"\w[\w.-]*", identifier):
        raise UsageError(
            f"-overwrite_plans_identifier {identifier}: it becomes a part of names of files; give "
            "letters, digits, '_', '-' and '.'."
        )


def _dimension(configuration: str) -> str:
    return "2d" if configuration == _FLAT else "3d"


def _plans(planner: str) -> str | None:
    """Return the identifier of the plans of a planner of v1; None for the word None, and for the
    planner of plans of another task, whose identifier the user gives.
    """
    if planner in ("None", COPYING):
        return None
    if planner not in PLANNERS:
        raise UsageError(
            f"The planner '{planner}' has no counterpart.{nearest(planner, PLANNERS)} Known: "
            f"{', '.join(PLANNERS)}. Others: docs/how-to/planners-and-preprocessors.md."
        )
    return PLANNERS[planner][0]


def _together(plans: dict[str, str | None], task: str) -> list[tuple[list[str], list[str]]]:
    """Return (options, dimensions) of each set of plans: both dimensions are in one file."""
    found: dict[str, list[str]] = {}
    for dimension, identifier in plans.items():
        if identifier is not None:
            found.setdefault(identifier, []).append(dimension)
    made = []
    for name, which in found.items():
        words = planner_options(name, task)
        made.append(([*words, *settings(planner="copied" not in words)], which))
    return made


def _planned(task: str, words: Sequence[str]) -> list[str]:
    """Plan; return the configurations that there are and that v1 prepares: the cascade uses the
    cases of the full resolution.
    """
    from nnunet_v1_commands.plans import plans_of

    nnunet("plan", task, *words)
    names = plans_of(task, words).configurations
    return [name for name in (_FLAT, "3d_lowres", "3d_fullres") if name in names]


def plot(arguments: Sequence[str] | None = None) -> None:
    """Draw a PNG of every training case, through the slice with most foreground."""
    parser = argparse.ArgumentParser("nnUNet_plot_task_pngs", description=plot.__doc__)
    parser.add_argument("-t", required=True, help="task name or id")
    parser.add_argument("-o", required=True, type=Path, help="folder to write")
    parser.add_argument("-num_processes", type=int, help="is one here")
    parser.add_argument("-modality_idx", type=int, default=0, help="channel to draw")
    parser.add_argument("--use_raw", action="store_true", help="is always so here")
    run(parser, _plot, arguments, [RAW])


def _plot(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from nnunet_builtin.pictures.drawing import contact_sheet
    from nnunet_core.registry.discovery import Registry
    from nnunet_core.runtime.names import below
    from nnunet_core.stages.dataset import open_dataset

    if options.num_processes is not None:
        note("-num_processes: pictures are drawn one after the other")
    if not options.use_raw:
        note("raw images are drawn, as with --use_raw; prepared ones are not")
    data = open_dataset(task_name(options.t), workspace().raw, Registry.discover())
    channel, channels = options.modality_idx, len(data.channels)
    if not 0 <= channel < channels:
        raise UsageError(f"-modality_idx {channel}: the images have channels 0 to {channels - 1}.")
    options.o.mkdir(parents=True, exist_ok=True)
    for files in data.training:
        case = data.load(files)
        shown = replace(case, images=case.images[channel : channel + 1])
        contact_sheet([shown], below(options.o, f"{files.name}.png"), data.labels)
    typer.echo(f"{len(data.training)} pictures in {options.o}")
