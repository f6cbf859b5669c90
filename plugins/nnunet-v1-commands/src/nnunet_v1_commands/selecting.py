"""`nnUNet_find_best_configuration` and `nnUNet_determine_postprocessing`."""

from __future__ import annotations

import argparse
import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_v1_commands.layout import (
    POSTPROCESSING,
    ensemble_file,
    show_model,
    write_postprocessing,
)
from nnunet_v1_commands.methods import V1Method, method_of
from nnunet_v1_commands.plugin import PLANS
from nnunet_v1_commands.running import (
    CONFIGURATIONS,
    run,
    task_with_data,
    v1_results,
    workspace,
)

if TYPE_CHECKING:
    from nnunet_core.prediction.find_best import Selection
    from nnunet_core.stages.select import Candidate


def find_best(arguments: Sequence[str] | None = None) -> None:
    """Compare trained configurations and their ensembles; print how the best predicts."""
    parser = argparse.ArgumentParser(
        "nnUNet_find_best_configuration", description=find_best.__doc__
    )
    _add_method(parser, "-m", nargs="+", default=list(CONFIGURATIONS))
    parser.add_argument("-t", "--task_ids", nargs="+", required=True, help="names or ids")
    parser.add_argument("-f", "--folds", nargs="+", default=["0", "1", "2", "3", "4"])
    parser.add_argument("--disable_ensembling", action="store_true")
    parser.add_argument("--disable_postprocessing", action="store_true")
    run(parser, _find_best, arguments)


def _add_method(parser: argparse.ArgumentParser, flag: str, **how: object) -> None:
    parser.add_argument(flag, "--models", choices=CONFIGURATIONS, **how)  # type: ignore[arg-type]
    parser.add_argument("-tr", "--trainer")
    parser.add_argument("-ctr", "--cascade_trainer")
    parser.add_argument("-pl", "--plans", default=PLANS)


def _find_best(options: argparse.Namespace) -> None:
    flags = (options.trainer, options.cascade_trainer, options.plans)
    methods = {name: method_of(name, *flags) for name in options.models}
    for reference in options.task_ids:
        task = task_with_data(reference)
        selection = _select(
            task,
            methods,
            tuple(options.folds),
            ensembles=not options.disable_ensembling,
            postprocess=not options.disable_postprocessing,
        )
        _write_v1(selection, task, methods)


def _select(
    task: str,
    methods: dict[str, V1Method],
    folds: tuple[str, ...],
    *,
    ensembles: bool,
    postprocess: bool,
) -> Selection:
    from nnunet_cli.commands.find_best import print_inference, print_table
    from nnunet_cli.reporter import make_reporter
    from nnunet_core.prediction.find_best import Choice
    from nnunet_core.prediction.find_best import find_best as find_best_of
    from nnunet_core.stages.dataset import open_dataset

    registry, space = Registry.discover(), workspace()
    variants = {m.model(task, registry).parent.name for m in methods.values()}
    choice = Choice(tuple(sorted(variants)), tuple(methods), folds, ensembles, postprocess, True)
    dataset = open_dataset(task, space.raw, registry, space.preprocessed)
    selection = find_best_of(dataset, space.results, registry, choice, make_reporter())
    print_table(selection, f"{task}: Dice on validation cases")
    print_inference(selection)
    return selection


def _write_v1(selection: Selection, task: str, methods: dict[str, V1Method]) -> None:
    """Write what v1 writes: a decision for each candidate, a table, and v1's commands."""
    folder = v1_results() / "ensembles" / task
    for candidate in selection.candidates:
        if len(candidate.members) == 1:
            (name,) = _names(candidate)
            show_model(methods[name], task, candidate.folder)
        if candidate.postprocessing is not None:
            path = _postprocessing(candidate, task, methods)
            write_postprocessing(path, candidate.postprocessing.state)
    files.write_bytes(folder / "summary.csv", _table(selection, methods).encode())
    lines = _commands(selection.best, task, methods)
    files.write_bytes(folder / "prediction_commands.txt", "\n".join([*lines, ""]).encode())
    typer.echo("in the words of v1:")
    for line in lines:
        typer.echo(f"  {line}")


def _names(candidate: Candidate) -> list[str]:
    return [member.model.document.configuration_name for member in candidate.members]


def _title(candidate: Candidate, methods: dict[str, V1Method]) -> str:
    """Return v1's name of a candidate: `3d_fullres__TRAINER__PLANS`, or `ensemble_A--B`."""
    names = "--".join(methods[name].title for name in _names(candidate))
    return names if len(candidate.members) == 1 else f"ensemble_{names}"


def _postprocessing(candidate: Candidate, task: str, methods: dict[str, V1Method]) -> Path:
    found = [methods[name] for name in _names(candidate)]
    return ensemble_file(task, found) if len(found) > 1 else found[0].folder(task) / POSTPROCESSING


def _table(selection: Selection, methods: dict[str, V1Method]) -> str:
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["model", *selection.best.dice, "average"])
    for candidate in selection.candidates:
        numbers = [f"{value:.4f}" for value in (*candidate.dice.values(), candidate.mean_dice)]
        writer.writerow([_title(candidate, methods), *numbers])
    return rows.getvalue()


def _commands(best: Candidate, task: str, methods: dict[str, V1Method]) -> list[str]:
    """Return v1's commands that predict with the best."""
    lines, outputs = [], []
    several = len(best.members) > 1
    for number, name in enumerate(_names(best), start=1):
        method = methods[name]
        flag = "-ctr" if name == "3d_cascade_fullres" else "-tr"
        outputs.append(f"OUTPUT_FOLDER_MODEL{number}")
        words = ["nnUNet_predict", "-i", "FOLDER_WITH_TEST_CASES", "-o", outputs[-1]]
        words += [flag, method.trainer, "-m", name, "-p", method.plans, "-t", task]
        folds = ["-f", *best.members[number - 1].folds]
        lines.append(shlex.join([*words, *folds, *(["-z"] if several else [])]))
    if several:
        words = ["nnUNet_ensemble", "-f", *outputs, "-o", "OUTPUT_FOLDER"]
        if best.postprocessing is not None:
            words += ["-pp", str(_postprocessing(best, task, methods))]
        lines.append(shlex.join(words))
    return lines


def determine_postprocessing(arguments: Sequence[str] | None = None) -> None:
    """Decide about postprocessing on the validation cases of all folds."""
    parser = argparse.ArgumentParser(
        "nnUNet_determine_postprocessing", description=determine_postprocessing.__doc__
    )
    parser.add_argument("-m", "--models", required=True, choices=CONFIGURATIONS)
    parser.add_argument("-t", "--task", required=True, help="name or id")
    parser.add_argument("-tr", "--trainer")
    parser.add_argument("-pl", "--plans", default=PLANS)
    parser.add_argument("-val", default="validation_raw", help="folder of the validation")
    run(parser, _determine_postprocessing, arguments)


def _determine_postprocessing(options: argparse.Namespace) -> None:
    from nnunet_cli.commands.find_best import decision
    from nnunet_cli.reporter import make_reporter
    from nnunet_core.prediction.find_best import Choice, find_trained
    from nnunet_core.stages.dataset import open_dataset
    from nnunet_core.stages.select import consolidate

    if options.val != "validation_raw":
        raise UsageError(f"-val {options.val}: validations are in 'validation'. Leave it out.")
    registry, space, task = Registry.discover(), workspace(), task_with_data(options.task)
    method = method_of(options.models, options.trainer, options.trainer, options.plans)
    model = method.model(task, registry)
    dataset = open_dataset(task, space.raw, registry, space.preprocessed)
    choice = Choice((model.parent.name,), (options.models,), strict=True)
    (trained,), _ = find_trained(space.results / task, dataset, choice)
    found = consolidate(trained, dataset, registry, make_reporter())
    if found.postprocessing is not None:
        path = method.folder(task) / POSTPROCESSING
        write_postprocessing(path, found.postprocessing.state)
        typer.echo(f"{decision(found.postprocessing.state)}: {path}")
