"""`nnunet models import`: models of nnU-Net v1 and v2, made into ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from nnunet_builtin.models.foreign import Foreign, ImportOptions
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import NnunetError, UsageError, counted
from nnunet_core.registry.components import PREDICTING_KINDS
from nnunet_core.store.models import FILE, MANIFEST


def import_models(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            help="A zip or tar.gz of models of nnU-Net v1 or v2, or a folder that holds some: a "
            "results folder, a task, a trainer's folder.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the dataset in the results; default: the one of the model's folders.",
            show_default=False,
        ),
    ] = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration",
            "-c",
            help="Import only this one; repeatable. Of a folder that does not say what it is: its "
            "name.",
        ),
    ] = None,
    dataset_json: Annotated[
        Path | None,
        typer.Option(
            "--dataset-json",
            help="File with 'labels' (and 'regions_class_order', 'channel_names'): names of "
            "labels, and regions, which v1 does not store.",
            show_default=False,
        ),
    ] = None,
    mirror_axes: Annotated[
        str | None,
        typer.Option(
            help="Axes of the patch to average over when predicting, with commas between them "
            "(0,1,2), or 'none'; default: what the model stores; of v1, all.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KIND.FIELD=VALUE",
            help="A setting of what predicts, e.g. network.negative_slope=0; repeatable.",
        ),
    ] = None,
    checkpoint: Annotated[
        Literal["final", "best"], typer.Option(help="Which weights of a training.")
    ] = "final",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace models that were imported before.")
    ] = False,
    workspace: o.WorkspaceOption = None,
) -> None:
    """Make trained models of nnU-Net v1 or v2 into models of this workspace, without running
    anything in their pickles. Either all models of SOURCE are written, or none.
    """
    from nnunet_builtin.models.v1_ensembles import find_ensembles, write_ensembles
    from nnunet_builtin.models.writing import write_models

    results, report = o.workspace_of(workspace).results, make_reporter()
    options = ImportOptions(
        name=name,
        dataset_json=dataset_json,
        mirror_axes=_axes(mirror_axes),
        settings=_settings(settings or []),
        checkpoint=checkpoint,
    )
    with _folder_of(source, results) as folder:
        if not (there := find_models(folder)):
            raise UsageError(_nothing_found(folder, source))
        found = _chosen(there, configuration or [], source)
        _check_name(found, name)
        models = [one.convert(_named(options, one, configuration), report) for one in found]
        ensembles = find_ensembles(folder)
        written = write_models(models, results, o.registry_of(context), overwrite)
        told = write_ensembles(ensembles, found, written, o.registry_of(context))
    for model, place in zip(models, written, strict=True):
        reference = "/".join(place.parts[-3:])
        out().print(f"{reference}  {model.origin}", soft_wrap=True, markup=False)
        for note in model.notes:
            report.warning(f"{reference}: {note}")
    for line in told:
        report.message(line)
    out().print(
        f"imported {counted(len(written), 'model')} to {results}; predict with: nnunet predict "
        f"{'/'.join(written[-1].parts[-3:])} IMAGES OUTPUT",
        soft_wrap=True,
        markup=False,
    )


def find_models(folder: Path) -> list[Foreign]:
    """Return every model of another framework in a folder and below."""
    from nnunet_builtin.models import v1, v2

    halves: Sequence[Callable[[Path], Sequence[Foreign]]] = (v1.find, v2.find)
    return [found for find in halves for found in find(folder)]


@contextlib.contextmanager
def _folder_of(source: Path, results: Path) -> Iterator[Path]:
    """Yield a folder; of an archive, what is in it, which is removed afterwards."""
    from nnunet_builtin.untrusted.archives import unpacked

    if source.is_dir():
        yield source.absolute()
    elif source.is_file():
        with unpacked(source, results / "import") as folder:
            try:
                yield folder
            except NnunetError as error:  # the folder is gone when the user reads it
                error.args = (str(error).replace(str(folder), str(source)),)
                raise
    else:
        raise UsageError(f"There is no file or folder {source} to import models from.")


def _nothing_found(folder: Path, source: Path) -> str:
    """Say what was looked for; where the source is a model of ours, which command takes it."""
    if next(folder.rglob(MANIFEST), None) and source.is_file():
        return (
            f"{source} was written by 'nnunet models export' and is no model of nnU-Net v1 or v2. "
            f"Run: nnunet models install {source}"
        )
    if next(folder.rglob(FILE), None):
        return (
            f"{source} holds a model of this framework, which needs no import: nnunet predict "
            "FOLDER IMAGES OUTPUT, with the folder that holds its model.json."
        )
    return (
        f"{source} holds no model of nnU-Net v1 (fold_0/model_final_checkpoint.model) or v2 "
        "(fold_0/checkpoint_final.pth). Give the folder that holds the folds, or one above it."
    )


def _chosen(found: Sequence[Foreign], asked: Sequence[str], source: Path) -> list[Foreign]:
    """Return the models to import: all, or those of the configurations that were asked for; the low
    resolution of a cascade first.

    Raises:
        UsageError: There are none of them.
    """
    chosen = [one for one in found if not asked or one.configuration in (None, *asked)]
    if not chosen:
        names = sorted({one.configuration for one in found if one.configuration})
        raise UsageError(
            f"{source} holds no model of the configuration {', '.join(asked)}. It holds: "
            f"{', '.join(names)}."
        )
    unnamed = [one.title for one in chosen if one.configuration is None]
    if len(unnamed) > 1 and asked:
        raise UsageError(
            f"--configuration names one model, but {source} holds several whose folders do not say "
            f"what they are: {', '.join(unnamed)}. Import them one by one."
        )
    return chosen


def _named(
    options: ImportOptions, foreign: Foreign, configurations: Sequence[str] | None
) -> ImportOptions:
    """Return the options with the configuration of a model whose folder does not say it."""
    if foreign.configuration is not None or not configurations:
        return options
    return replace(options, configuration=configurations[0])


def _check_name(found: Sequence[Foreign], name: str | None) -> None:
    datasets = {foreign.dataset for foreign in found}
    if name is not None and len(datasets) > 1:
        raise UsageError(
            f"--name gives one name, but the models are of {len(datasets)} datasets: "
            f"{', '.join(sorted(str(dataset or 'unknown') for dataset in datasets))}. Import them "
            "one by one."
        )


def _axes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [] if text.strip() == "none" else text.split(",")
    try:
        axes = tuple(sorted({int(part) for part in parts}))
    except ValueError:
        axes = (-1,)
    if any(axis not in (0, 1, 2) for axis in axes):
        raise UsageError(
            f"--mirror-axes {text}: give axes from 0 to 2 with commas between them, or 'none'."
        )
    return axes


def _settings(assignments: Sequence[str]) -> dict[str, dict[str, object]]:
    parsed = o.parse_assignments(assignments)
    if others := sorted(set(parsed) - set(PREDICTING_KINDS)):
        raise UsageError(
            f"--set got a field of the {others[0]}; an imported model has only what predicts: "
            f"{', '.join(PREDICTING_KINDS)}."
        )
    return parsed
