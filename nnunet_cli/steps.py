"""`nnunet plan`, `preprocess` and `train`: the single steps of a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.table import Table

from nnunet_cli import options as o
from nnunet_cli.launch import launch
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.plans import Plans
from nnunet_core.data.splits import load_splits
from nnunet_core.registry.settings import parse_assignments
from nnunet_core.runtime.processes import distributed_rank
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages import cascade
from nnunet_core.stages import select as selection
from nnunet_core.stages.experiment import Experiment, check_trainer
from nnunet_core.stages.folds import train_fold
from nnunet_core.stages.method import Method, choose, starting_from
from nnunet_core.stages.plan import describe, make_plans
from nnunet_core.stages.prepare import prepare
from nnunet_core.stages.run import (
    Request,
    default_configurations,
    prepare_experiment,
    previous_stage,
)
from nnunet_core.store.raw import open_dataset
from nnunet_core.store.workspace import Workspace


def plan(
    context: typer.Context,
    dataset: o.DatasetArgument,
    variant: o.VariantOption = "default",
    planner: o.PlannerOption = None,
    network: o.NetworkOption = None,
    settings: o.SetOption = None,
    workspace: o.WorkspaceOption = None,
    processes: o.ProcessesOption = None,
    memory_gb: o.MemoryOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Make the plans of a dataset and show them: what will be trained, and why.

    The plans file may be edited by hand; it is validated when it is read.
    """
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    method = choose(
        registry,
        variant,
        o.choices_of(planner=planner, network=network),
        parse_assignments(settings or []),
    )
    report = make_reporter(quiet=as_json)
    data = open_dataset(dataset, space.raw, registry, space.preprocessed)
    with o.workers_of(processes, memory_gb, report) as pool:
        plans, path = make_plans(data, method, space, pool, report)
    if as_json:
        typer.echo(plans.model_dump_json(indent=1))
    else:
        _print_plans(plans)
        out().print(f"plans file: {path}", soft_wrap=True)


def preprocess(
    context: typer.Context,
    dataset: o.DatasetArgument,
    variant: o.VariantOption = "default",
    planner: o.PlannerOption = None,
    preprocessor: o.PreprocessorOption = None,
    network: o.NetworkOption = None,
    settings: o.SetOption = None,
    configuration: o.ConfigurationOption = None,
    workspace: o.WorkspaceOption = None,
    processes: o.ProcessesOption = None,
    memory_gb: o.MemoryOption = None,
    device: o.DeviceOption = "cpu",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Read every prepared case; prepare again what is not as it was written.",
        ),
    ] = False,
) -> None:
    """Prepare the training cases of a dataset: crop, resample, normalise, store. Finished cases are not done again."""
    registry, space, report = o.registry_of(context), o.workspace_of(workspace), make_reporter()
    choices = o.choices_of(planner=planner, preprocessor=preprocessor, network=network)
    method = choose(registry, variant, choices, parse_assignments(settings or []))
    data = open_dataset(dataset, space.raw, registry, space.preprocessed)
    with o.workers_of(processes, memory_gb, report) as pool:
        plans, _ = make_plans(data, method, space, pool, report)
        for name in configuration or default_configurations(plans):
            store = prepare(
                data, plans.configuration(name), method, space, pool, report, device, verify
            )
            out().print(f"{name}: {len(store.names())} cases in {store.folder}", soft_wrap=True)


def train(
    context: typer.Context,
    dataset: o.DatasetArgument,
    variant: o.VariantOption = "default",
    planner: o.PlannerOption = None,
    preprocessor: o.PreprocessorOption = None,
    network: o.NetworkOption = None,
    loss: o.LossOption = None,
    augmentation: o.AugmentationOption = None,
    trainer: o.TrainerOption = None,
    postprocessor: o.PostprocessorOption = None,
    settings: o.SetOption = None,
    configuration: o.ConfigurationOption = None,
    folds: o.FoldsOption = "0",
    workspace: o.WorkspaceOption = None,
    device: o.DeviceOption = "auto",
    precision: o.PrecisionOption = "auto",
    workers: o.WorkersOption = None,
    threads: o.ThreadsOption = 0,
    processes: o.ProcessesOption = None,
    memory_gb: o.MemoryOption = None,
    seed: o.SeedOption = 12345,
    pretrained: o.PretrainedOption = None,
    freeze: o.FreezeOption = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="Train on this many GPUs of this machine, through torchrun."),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Train the folds anew; what is trained is kept under another name."
        ),
    ] = False,
) -> None:
    """Train and validate folds; plans and prepared cases are made if they are missing. A stopped training goes on."""
    if gpus is not None and gpus > 1:
        launch(sys.argv[1:], gpus, device)
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    report = make_reporter(quiet=distributed_rank() > 0)
    choices = o.choices_of(
        planner=planner,
        preprocessor=preprocessor,
        network=network,
        loss=loss,
        augmentation=augmentation,
        trainer=trainer,
        postprocessor=postprocessor,
    )
    request = Request(
        dataset=dataset,
        runtime=Runtime(device, precision, workers, threads),
        folds=o.folds_of(folds),
        seed=seed,
    )
    method = starting_from(
        choose(registry, variant, choices, parse_assignments(settings or [])),
        pretrained,
        () if freeze is None else (freeze,),
    )
    data = open_dataset(dataset, space.raw, registry, space.preprocessed)
    report.message(f"method: {method.name}")
    check_trainer(method, request.runtime)
    splits = load_splits(data.names, request.folds, space.splits(data.name), report)
    with o.workers_of(processes, memory_gb, report) as pool:
        plans, _ = make_plans(data, method, space, pool, report)
    for name in configuration or default_configurations(plans):
        with o.workers_of(processes, memory_gb, report) as pool:
            experiment = _experiment(request, data, method, plans, name, space, pool, report)
        for fold, split in splits.items():
            summary = train_fold(experiment, fold, split, restart)
            if not summary:
                continue
            dice = selection.dice_by_name(summary, data)
            shown = ", ".join(f"{label} {value:.4f}" for label, value in dice.items())
            out().print(
                f"{name} fold {fold}: validation Dice {shown}; {experiment.fold_folder(fold)}",
                soft_wrap=True,
            )


def _experiment(
    request: Request,
    dataset: Dataset,
    method: Method,
    plans: Plans,
    name: str,
    space: Workspace,
    pool: Workers,
    report: Reporter,
) -> Experiment:
    """Prepare a configuration; a cascade is connected with the stage before it, which must be trained."""
    experiment = prepare_experiment(request, dataset, method, plans, name, space, pool, report)
    if experiment.configuration.previous is None:
        return experiment
    return cascade.connect(experiment, *previous_stage(request, experiment, plans, space, pool))


def _print_plans(plans: Plans) -> None:
    table = Table(title=f"Plans of {plans.dataset} by {plans.planner}", title_justify="left")
    table.add_column("")
    facts = {name: describe(configuration) for name, configuration in plans.configurations.items()}
    for name in facts:
        table.add_column(name, overflow="fold")
    for row in next(iter(facts.values()), {}):
        table.add_row(row, *(facts[name][row] for name in facts))
    console = out()
    console.print(table)
    for name, configuration in plans.configurations.items():
        for note in configuration.notes:
            console.print(f"{name}: {note}", soft_wrap=True)
    for name, reason in plans.skipped.items():
        console.print(f"no {name}: {reason}", soft_wrap=True)
