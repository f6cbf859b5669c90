"""Datasets that are made when they are asked for by name: `nnunet run demo`."""

from __future__ import annotations

from dataclasses import replace

from nnunet_cli.logs import FOLDER, start_log
from nnunet_cli.reporter import make_reporter
from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.dataset import DatasetMaker
from nnunet_core.registry.discovery import Registry
from nnunet_core.run import Request
from nnunet_core.runtime.processes import distributed_rank
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.dataset import find_dataset
from nnunet_core.store.workspace import Workspace


def logged(
    request: Request, registry: Registry, workspace: Workspace, command: str, quiet: bool = False
) -> tuple[Request, Reporter]:
    """Return the request of `made`, and a reporter whose lines are also in a log beside the results
    of the dataset; so is all else that is printed from now on.

    Raises:
        UsageError: There is no such dataset.
        NnunetError: The dataset cannot be made.
    """
    request = made(request, registry, workspace, make_reporter(quiet))
    name = find_dataset(request.dataset, workspace.raw, registry).name
    if distributed_rank() > 0:  # the first of several processes reports
        return request, make_reporter(quiet=True)
    path = start_log(workspace.results / name / FOLDER, command)
    report = make_reporter(quiet)
    if path is not None:
        report.message(f"log: {path}")
    return request, report


def made(request: Request, registry: Registry, workspace: Workspace, report: Reporter) -> Request:
    """Return the request with the folder of its dataset, which a plugin makes if it is known by
    that name.

    What the user chose stays as it is; the rest is what the maker of the dataset says
    (contracts.DatasetMaker). Predictions in the dataset's own output folder are replaced by those
    of the last run.

    Raises:
        NnunetError: The dataset cannot be made.
    """
    if request.dataset not in {resolved.name for resolved in registry.components("dataset")}:
        return request
    maker: DatasetMaker = built(registry.resolve("dataset", request.dataset))
    folder = maker.make(workspace.raw, report)
    usual = Request(dataset=request.dataset)
    predict = folder / maker.predict if maker.predict else None
    output = workspace.results / folder.name / "predictions" if maker.predict else None
    return replace(
        request,
        dataset=str(folder),
        variant=(maker.variant or usual.variant)
        if request.variant == usual.variant
        else request.variant,
        folds=maker.folds if request.folds == usual.folds else request.folds,
        predict=request.predict or predict,
        options=request.options if request.output else replace(request.options, overwrite=True),
        output=request.output or output,
    )
