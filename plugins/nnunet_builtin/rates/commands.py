"""`nnunet find-lr`: a range test of the learning rate."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunet_builtin.rates.sweep import Sweep, rising, swept
from nnunet_cli import options as o
from nnunet_cli.groups import grouped
from nnunet_cli.makers import made
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.contracts.abilities import TriesRates, ability
from nnunet_core.contracts.trainer import TrainingTask
from nnunet_core.errors import StoppedError, TrainingError, UsageError
from nnunet_core.registry.settings import full_settings
from nnunet_core.run import Pipeline, Request, opened
from nnunet_core.runtime import files
from nnunet_core.runtime.processes import in_several_processes
from nnunet_core.runtime.signals import Stopped
from nnunet_core.stages.folds import training_task

Rates = tuple[float, ...]
CSV, JSON, PICTURE = "find_lr.csv", "find_lr.json", "find_lr.png"
_MEANING = (
    "These are rates of single batches at the start of a training, while the rate rises: they show "
    "the range in which this network learns at all, with this batch size, optimiser and loss. They "
    "are not the best rate of a whole training, whose schedule lowers it. Compare trainings: "
    "nnunet train --set trainer.learning_rate=..."
)


@dataclass(frozen=True)
class RangeTest:
    """A range test that was made.

    Attributes:
        sweep: What was measured.
        facts: What of, and what it shows; JSON values.
        usual: Learning rate that the trainer is set to, if it has that setting.
    """

    sweep: Sweep
    facts: dict[str, Any]
    usual: float | None


@grouped
def find_lr(
    context: typer.Context,
    dataset: o.RunDatasetArgument,
    *,
    training: o.Training,
    fold: Annotated[str, typer.Option(help="Whose training cases: a number, or 'all'.")] = "0",
    iterations: Annotated[
        int, typer.Option(min=20, max=1_000_000, help="Batches, each with a higher rate.")
    ] = 1000,
    lowest: Annotated[float, typer.Option(min=1e-12, help="Rate of the first batch.")] = 1e-6,
    highest: Annotated[float, typer.Option(help="Rate of the last batch.")] = 10.0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the picture, CSV and JSON. Default: find_lr_DATASET_CONFIGURATION "
            "here.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier test wrote there.")
    ] = False,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Raise the learning rate from batch to batch, geometrically, and show how the loss answers.

    It ends when the loss diverges. Nothing of it is kept as a training: folds and models that are
    there stay as they are, and none is added.
    """
    rates = _checked(lowest, highest, iterations)
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    request = Request(dataset, folds=o.folds_of(fold), **training)
    report = make_reporter(quiet=as_json)
    with opened(made(request, registry, space, report), registry, space, report) as steps:
        trainer = _able(steps)
        name = _one(steps.configurations())
        folder = output or Path(f"find_lr_{steps.dataset.name}_{name}")
        if (folder / JSON).exists() and not overwrite:
            raise UsageError(
                f"{folder} holds a range test already. Give another folder (--output), or "
                "--overwrite to replace it."
            )
        found = _tested(steps, trainer, name, rates)
    _write(found, folder)
    if as_json:
        typer.echo(json.dumps({**found.facts, "folder": str(folder)}, indent=1))
        return
    for line in _sentences(found.facts):
        out().print(line, soft_wrap=True, markup=False)
    out().print(str(folder / PICTURE), soft_wrap=True, markup=False)


def _checked(lowest: float, highest: float, iterations: int) -> Rates:
    if not lowest < highest <= 1e6:
        raise UsageError(
            f"--lowest {lowest:g} --highest {highest:g}: rates rise from the first to the second, "
            "which is at most 1e6. v1 has 1e-6 and 10."
        )
    if in_several_processes():
        raise UsageError("A range test is one process; start it without torchrun.")
    return rising(lowest, highest, iterations)


def _one(configurations: tuple[str, ...]) -> str:
    if len(configurations) > 1:
        raise UsageError(
            f"A range test is of one configuration; --configuration names "
            f"{', '.join(configurations)}."
        )
    return configurations[0]


def _able(steps: Pipeline) -> TriesRates:
    """Return the trainer; raises UsageError where it lacks the ability."""
    able = ability(steps.method.build("trainer"), TriesRates)
    if able is None:
        raise UsageError(
            f"The trainer '{steps.method.components['trainer'].reference}' cannot try learning "
            "rates (abilities.TriesRates). Those that build on 'v2' can."
        )
    return able


def _tested(steps: Pipeline, trainer: TriesRates, name: str, rates: Rates) -> RangeTest:
    """Make the test of a configuration.

    Raises:
        UsageError: Several folds are asked for.
        TrainingError: The first loss is not finite already.
    """
    splits = steps.splits()
    if len(splits) > 1:
        raise UsageError(f"A range test is of one fold; --fold names {', '.join(splits)}.")
    ((fold, split),) = splits.items()
    experiment = steps.experiment(name)
    steps.workers.close()  # a training needs their memory
    with tempfile.TemporaryDirectory() as folder:
        task = training_task(experiment, Path(folder), split, lambda _: None)
        sweep = _measured(trainer, task, rates)
    facts = {
        "dataset": steps.dataset.name,
        "method": steps.method.name,
        "configuration": name,
        "fold": fold,
        "seed": steps.request.seed,
        "options": experiment.options(),
        "iterations": len(rates),
        "lowest_rate": rates[0],
        "highest_rate": rates[-1],
        **_shown(sweep, len(rates)),
    }
    usual = full_settings(steps.method.components["trainer"]).get("learning_rate")
    return RangeTest(sweep, facts, usual)


def _measured(trainer: TriesRates, task: TrainingTask, rates: Rates) -> Sweep:
    """Train for a while in the folder of a task.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; a range test does not go on where it stopped.
        TrainingError: The first loss is not finite already.
    """
    try:
        with task.report.track("find-lr", len(rates)) as tracker:
            sweep = swept(
                trainer.try_rates(task, rates),
                rates,
                lambda rate, loss: tracker.advance(1, f"rate {rate:.1e}  loss {loss:.4f}"),
            )
    except Stopped as stop:
        raise StoppedError("Nothing was written.", stop.number) from stop
    if not sweep.rates:
        raise TrainingError(
            "The loss of the first batch is not finite already, so there is no range of rates to "
            "find. Check the cases with 'nnunet dataset verify', or use --precision float32."
        )
    return sweep


def _shown(sweep: Sweep, batches: int) -> dict[str, Any]:
    """Return what a sweep shows."""
    steepest, lowest = sweep.steepest(batches), sweep.lowest
    return {
        "batches": len(sweep.rates),
        "diverged_after": sweep.rates[-1] if sweep.diverged else None,
        "steepest_rate": steepest and steepest[0],
        "steepest_slope": steepest and steepest[1],
        "lowest_loss_rate": lowest and lowest[0],
        "lowest_smoothed_loss": lowest and lowest[1],
        "meaning": _MEANING,
    }


def _sentences(facts: dict[str, Any]) -> list[str]:
    """Return what a range test shows, for people."""
    if facts["steepest_rate"] is None:
        first = "The loss falls clearly nowhere; more --iterations, or other rates, may show more."
    else:
        first = (
            f"The loss falls fastest around the learning rate {facts['steepest_rate']:.1e} "
            f"({-facts['steepest_slope']:.2f} for a rate ten times higher)."
        )
    second = (
        f"The smoothed loss is lowest, {facts['lowest_smoothed_loss']:.4f}, at "
        f"{facts['lowest_loss_rate']:.1e}."
    )
    if facts["diverged_after"] is not None:
        second += f" It diverged after {facts['diverged_after']:.1e}."
    return [f"{first} {second}", _MEANING]


def _write(found: RangeTest, folder: Path) -> None:
    """Write table, picture and facts, these last."""
    from nnunet_builtin.rates.picture import draw

    sweep, facts, text = found.sweep, found.facts, io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["iteration", "learning_rate", "loss", "smoothed_loss"])
    rows = zip(sweep.rates, sweep.losses, sweep.smoothed, strict=True)
    table.writerows([index, *row] for index, row in enumerate(rows, start=1))
    files.write_text(folder / CSV, text.getvalue())
    title = f"{facts['dataset']}  {facts['configuration']}  fold {facts['fold']}  {facts['method']}"
    draw(sweep, facts["steepest_rate"], found.usual, title, folder / PICTURE)
    files.write_json(folder / JSON, facts)
