"""`nnunet ensemble`: the mean of folders of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import UsageError, counted
from nnunet_core.prediction.averaging import LabelFiles
from nnunet_core.prediction.ensemble import ensemble_folders
from nnunet_core.stages.dataset import describe_labels
from nnunet_core.store.postprocessing import read_decision


def ensemble(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER FOLDER... OUTPUT",
            help="FOLDER: predictions with probabilities, of 'nnunet predict --save-probabilities' "
            "or of this command, by any models of one dataset. OUTPUT: the folder that the label "
            "maps of their mean are written to.",
            show_default=False,
        ),
    ],
    postprocessing: Annotated[
        Path | None,
        typer.Option(
            help="File of a fitted postprocessor to apply: of 'nnunet find-best' or 'nnunet "
            "postprocess', or postprocessing.json of nnU-Net v1 or v2.",
            show_default=False,
        ),
    ] = None,
    dataset: o.LabelsOption = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write CASE.b2nd with the mean.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other predictions in the output folder.")
    ] = False,
    workspace: o.WorkspaceOption = None,
) -> None:
    """Average the probabilities of several predictions of the same images; an interrupted command
    goes on.
    """
    registry = o.registry_of(context)
    if len(paths) < 3:
        raise UsageError(
            f"nnunet ensemble takes two or more folders and the one to write; got "
            f"{' '.join(map(str, paths))}."
        )
    declared = None
    if dataset is not None:
        raw = o.workspace_of(workspace).raw
        declared = LabelFiles.of(describe_labels(dataset, raw, registry))
    written = ensemble_folders(
        paths[:-1],
        paths[-1],
        registry,
        declared,
        None if postprocessing is None else read_decision(postprocessing),
        save_probabilities,
        overwrite,
        make_reporter(),
    )
    out().print(f"{counted(len(written), 'case')} in {paths[-1]}", soft_wrap=True)
