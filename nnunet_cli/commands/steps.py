"""`nnunet plan`, `preprocess` and `train`: the main path up to one of its steps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nnunet_cli import options as o
from nnunet_cli.groups import grouped
from nnunet_cli.launch import launch
from nnunet_cli.makers import logged, made
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.plans import Configuration, Plans
from nnunet_core.errors import counted
from nnunet_core.run import Request, opened
from nnunet_core.runtime.collecting import collector_rests
from nnunet_core.stages.select import dice_by_name


@grouped
def plan(
    context: typer.Context,
    dataset: o.RunDatasetArgument,
    *,
    variants: o.Variants,
    choices: Annotated[dict[str, str], o.components_of("planner", "network")],
    settings: o.Settings,
    workspace: o.WorkspaceOption = None,
    pool: o.Pool,
    as_json: o.JsonOption = False,
) -> None:
    """Make the plans of a dataset and show them: what will be trained, and why.

    The plans file may be edited by hand; it is validated when it is read.
    """
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    request = Request(dataset, choices=choices, settings=settings, **variants, **pool)
    report = make_reporter(quiet=as_json)
    request = made(request, registry, space, report)
    with collector_rests(), opened(request, registry, space, report) as steps:
        plans, path = steps.plans
    if as_json:
        typer.echo(plans.model_dump_json(indent=1))
    else:
        _print_plans(plans)
        out().print(f"plans file: {path}", soft_wrap=True)


@grouped
def preprocess(
    context: typer.Context,
    dataset: o.RunDatasetArgument,
    *,
    variants: o.Variants,
    choices: Annotated[dict[str, str], o.components_of("planner", "preprocessor", "network")],
    settings: o.Settings,
    configuration: o.ConfigurationOption = None,
    workspace: o.WorkspaceOption = None,
    pool: o.Pool,
    device: o.DeviceOption = "cpu",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Read every prepared case; prepare again what is not as it was written.",
        ),
    ] = False,
) -> None:
    """Prepare the training cases of a dataset: crop, resample, normalise, store. Finished cases are
    not done again.
    """
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    names = tuple(configuration or ())
    request = Request(
        dataset,
        choices=choices,
        settings=settings,
        configurations=names,
        **variants,
        **pool,
    )
    report = make_reporter()
    request = made(request, registry, space, report)
    with collector_rests(), opened(request, registry, space, report) as steps:
        for name in steps.configurations():
            store = steps.prepared(name, device, verify)
            out().print(
                f"{name}: {counted(len(store.names()), 'case')} in {store.folder}", soft_wrap=True
            )


@grouped
def train(
    context: typer.Context,
    dataset: o.RunDatasetArgument,
    *,
    training: o.Training,
    folds: o.FoldsOption = "0",
    workspace: o.WorkspaceOption = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="Train on this many GPUs of this machine, through torchrun."),
    ] = None,
    save_probabilities: o.ValidationProbabilitiesOption = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Train the folds anew; what is trained is kept under another name."
        ),
    ] = False,
) -> None:
    """Train and validate folds; plans and prepared cases are made if they are missing. A stopped
    training goes on.
    """
    if gpus is not None and gpus > 1:
        launch(sys.argv[1:], gpus, training["runtime"].device)
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    request = Request(
        dataset=dataset,
        folds=o.folds_of(folds),
        save_probabilities=save_probabilities,
        **training,
    )
    request, report = logged(request, registry, space, "train")
    with opened(request, registry, space, report) as steps:
        for experiment, trained in steps.train(steps.splits(), restart):
            for fold, summary in trained:
                if not summary:  # another process of this training reports
                    continue
                folder = experiment.fold_folder(fold)
                _print_fold(experiment.configuration_name, fold, summary, steps.dataset, folder)


@grouped
def validate(
    context: typer.Context,
    dataset: o.RunDatasetArgument,
    *,
    training: o.Training,
    folds: Annotated[
        str | None,
        typer.Option(
            help="Trained folds with commas between them, or 'all'. Default: every fold that is "
            "stored."
        ),
    ] = None,
    save_probabilities: o.ValidationProbabilitiesOption = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Validate anew what is complete; a validation with another predictor or other "
            "settings takes the place of the one that is there.",
        ),
    ] = False,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Validate trained folds again; nothing is trained.

    Options that made the model must be those of its training: 'nnunet models show' prints them. A
    validation with another predictor, or with other settings of it, goes to a folder of its own
    beside that of the fold, which is said, unless --overwrite is given.
    """
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    request = Request(
        dataset=dataset,
        folds=o.folds_of(folds) if folds else (),
        save_probabilities=save_probabilities,
        **training,
    )
    rows = []
    request, report = logged(request, registry, space, "validate", quiet=as_json)
    with opened(request, registry, space, report) as steps:
        for experiment, fold, summary, folder in steps.validate(steps.splits(), overwrite):
            name = experiment.configuration_name
            if not as_json:
                _print_fold(name, fold, summary, steps.dataset, folder)
            mean = summary["results"]["mean"]
            rows.append({"configuration": name, "fold": fold, "folder": str(folder), "mean": mean})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))


def _print_fold(
    configuration: str, fold: str, summary: dict[str, Any], dataset: Dataset, folder: Path
) -> None:
    dice = dice_by_name(summary, dataset.labels)
    shown = ", ".join(f"{label} {value:.4f}" for label, value in dice.items())
    out().print(f"{configuration} fold {fold}: validation Dice {shown}; {folder}", soft_wrap=True)


def _print_plans(plans: Plans) -> None:
    table = Table(title=f"Plans of {plans.dataset} by {plans.planner}", title_justify="left")
    table.add_column("")
    facts = {name: _describe(configuration) for name, configuration in plans.configurations.items()}
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


def _describe(configuration: Configuration) -> dict[str, Any]:
    """Return the plain facts of a configuration for tables."""
    network = configuration.network
    return {
        "spacing (mm)": " x ".join(f"{v:.4g}" for v in configuration.spacing),
        "median shape": " x ".join(map(str, configuration.median_shape)),
        "patch size": " x ".join(map(str, configuration.patch_size)),
        "batch size": str(configuration.batch_size),
        "pooling per axis": " x ".join(
            str(sum(kernel[axis] > 1 for kernel in network.pool_kernels))
            for axis in range(network.dimensions)
        ),
        "features": ", ".join(
            str(network.features(stage)) for stage in range(len(network.conv_kernels))
        ),
        "axis order": str(configuration.transpose_forward),
        "normalisation": ", ".join(
            n.scheme + (" (mask)" if n.use_mask else "") for n in configuration.normalization
        ),
        "preprocessor": configuration.preprocessor,
    }
