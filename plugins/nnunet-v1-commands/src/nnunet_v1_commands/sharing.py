"""v1's commands that share models: export, install, download, and what is published."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import typer

from nnunet_core.errors import StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.store import inference
from nnunet_core.store.foreign_postprocessing import foreign_state
from nnunet_core.store.models import Model
from nnunet_v1_commands.layout import POSTPROCESSING, show_task
from nnunet_v1_commands.methods import V1Method, method_of
from nnunet_v1_commands.plugin import PLANS
from nnunet_v1_commands.running import (
    CONFIGURATIONS,
    RESULTS,
    nnunet,
    note,
    run,
    task_name,
    v1_results,
    workspace,
)

if TYPE_CHECKING:
    from nnunet_builtin.sharing.catalogue import Published
    from nnunet_core.store.inference import InferenceDocument

_MANIFEST = "manifest.json"  # of an export of ours


def export(arguments: Sequence[str] | None = None) -> None:
    """Write the models of a task, and what was decided for their ensembles, to one zip."""
    parser = argparse.ArgumentParser("nnUNet_export_model_to_zip", description=export.__doc__)
    parser.add_argument("-t", required=True, help="task name or id")
    parser.add_argument("-o", required=True, type=Path, help="zip to write")
    parser.add_argument("-m", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("-tr", help="trainer")
    parser.add_argument("-trc", help="trainer of the cascade")
    parser.add_argument("-pl", default=PLANS, help="identifier of the plans")
    parser.add_argument("--disable_strict", action="store_true", help="skip missing models")
    parser.add_argument("-f", nargs="+", default=["0", "1", "2", "3", "4"], help="folds")
    run(parser, _export, arguments, [RESULTS])


def _export(options: argparse.Namespace) -> None:
    if options.o.suffix != ".zip":
        raise UsageError(f"-o {options.o} must end with .zip, since it becomes such a file.")
    registry, task = Registry.discover(), task_name(options.t)
    models: dict[V1Method, Path] = {}
    for name in options.m:
        method = method_of(name, options.tr, options.trc, options.pl)
        try:
            models[method] = method.model(task, registry)
        except UsageError as error:
            if not options.disable_strict:
                raise
            note(f"{name} is left out: {error}")
    if not models:
        raise UsageError(f"There is no model of {task} to export.")
    folds = tuple(dict.fromkeys(options.f))
    if len(models) == 1:
        (model,) = models.values()
        nnunet("models", "export", model, options.o, "--folds", ",".join(folds), "--overwrite")
        return
    members = {method.title: (Model.open(path), folds) for method, path in models.items()}
    _export_several(task, members, options.o, registry)


def _export_several(
    task: str,
    members: Mapping[str, tuple[Model, tuple[str, ...]]],
    file: Path,
    registry: Registry,
) -> None:
    """Write one zip that 'nnunet models install' takes.

    Args:
        task: Its name.
        members: {v1's title: (model, names of its folds)}.
        file: What to write.
        registry: Of the postprocessors.
    """
    from nnunet_builtin.sharing.commands import print_exported
    from nnunet_builtin.sharing.export import export_models
    from nnunet_cli.reporter import make_reporter

    ensembles = _ensembles(task, members, registry)
    done = export_models(list(members.values()), ensembles, file, report=make_reporter())
    print_exported(done)
    for place in ensembles:
        typer.echo(f"with what was decided for {Path(place).parent.name}")


def _ensembles(
    task: str, members: Mapping[str, tuple[Model, tuple[str, ...]]], registry: Registry
) -> dict[str, tuple[Path, InferenceDocument]]:
    """Return the ensembles of the models that v1's layout has a decision for, as
    `sharing.export.export_models` takes them.
    """
    from nnunet_builtin.models.v1_ensembles import ensemble_document

    found = {}
    decided = (v1_results() / "ensembles" / task).glob(f"ensemble_*--*/{POSTPROCESSING}")
    for path in sorted(decided):
        titles = path.parent.name.removeprefix("ensemble_").split("--")
        if set(titles) <= set(members):
            place = f"ensembles/{path.parent.name}/{inference.FILE}"
            there, chosen = workspace().results / task / place, [members[t] for t in titles]
            document = ensemble_document(chosen, foreign_state(path), there.parent, registry)
            found[place] = there, document
    return found


def install(arguments: Sequence[str] | None = None) -> None:
    """Install the models of a zip, of ours or of v1."""
    parser = argparse.ArgumentParser(
        "nnUNet_install_pretrained_model_from_zip", description=install.__doc__
    )
    parser.add_argument("zip", type=Path)
    run(parser, lambda options: install_zip(options.zip), arguments, [RESULTS])


def install_zip(path: Path) -> None:
    """Install or import a zip, by what is in it, and show its tasks where v1 has them.

    Raises:
        StorageError: It is no zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path} cannot be read as a zip: {error}.") from error
    ours = any(Path(name).name == _MANIFEST and name.count("/") < 2 for name in names)
    nnunet("models", "install" if ours else "import", path, "--overwrite")
    _show(part for name in names for part in PurePosixPath(name).parts)


def _show(names: Iterable[str]) -> None:
    """Show the tasks among some names where v1 has them."""
    wanted, registry = set(names), Registry.discover()
    for folder in sorted(workspace().results.iterdir()):
        if folder.name in wanted:
            show_task(folder.name, registry)


def download(arguments: Sequence[str] | None = None) -> None:
    """Download the published models of a task of v1."""
    parser = argparse.ArgumentParser(
        "nnUNet_download_pretrained_model", description=download.__doc__
    )
    parser.add_argument("task_name")
    parser.add_argument("--accept-licence", action="store_true", help="do not ask")
    run(parser, _download, arguments, [RESULTS])


def _download(options: argparse.Namespace) -> None:
    from nnunet_builtin.sharing.catalogue import catalogue

    accepted = ["--accept-licence"] if options.accept_licence else []
    nnunet("models", "download", options.task_name, *accepted)
    _show([catalogue().find(options.task_name).name])


def download_by_url(arguments: Sequence[str] | None = None) -> None:
    """Download a zip of models and install it."""
    parser = argparse.ArgumentParser(
        "nnUNet_download_pretrained_model_by_url", description=download_by_url.__doc__
    )
    parser.add_argument("url")
    run(parser, _download_by_url, arguments, [RESULTS])


def _download_by_url(options: argparse.Namespace) -> None:
    from nnunet_builtin.sharing.downloading import downloaded
    from nnunet_cli.reporter import make_reporter

    with downloaded(options.url, workspace().results, make_reporter()) as archive:
        install_zip(archive)


def print_available(arguments: Sequence[str] | None = None) -> None:
    """Print the published tasks of v1."""
    parser = argparse.ArgumentParser(
        "nnUNet_print_available_pretrained_models", description=print_available.__doc__
    )
    parser.add_argument("--export", type=Path, help="folder for available_models.json")
    run(parser, _print_available, arguments, [])


def _print_available(options: argparse.Namespace) -> None:
    models = _published()
    if options.export is not None:
        document = {
            name: {"description": m.description, "url": m.files} for name, m in models.items()
        }
        files.write_json(options.export / "available_models.json", document)
    for name, model in models.items():
        typer.echo(f"{name}: {model.description}")


def print_info(arguments: Sequence[str] | None = None) -> None:
    """Print what is known of a published task."""
    parser = argparse.ArgumentParser(
        "nnUNet_print_pretrained_model_info", description=print_info.__doc__
    )
    parser.add_argument("task_name")
    run(parser, _print_info, arguments, [])


def _print_info(options: argparse.Namespace) -> None:
    from nnunet_builtin.sharing.catalogue import catalogue

    model = catalogue().find(options.task_name)
    typer.echo(f"{model.name}: {model.description}")
    typer.echo(f"channels: {', '.join(model.channels)}")
    typer.echo(f"labels: {', '.join(model.labels) or 'see the model'}")
    typer.echo(f"licence: {model.licence}; {model.about}")
    for address in model.files:
        typer.echo(address)


def _published() -> dict[str, Published]:
    from nnunet_builtin.sharing.catalogue import catalogue

    return {m.name: m for m in catalogue().models if m.framework == "nnU-Net v1"}


def change_trainer(arguments: Sequence[str] | None = None) -> None:
    """Change nothing: a model does not need the class of its trainer."""
    parser = argparse.ArgumentParser(
        "nnUNet_change_trainer_class", description=change_trainer.__doc__
    )
    parser.add_argument("-i", required=True, type=Path, help="model folder")
    parser.add_argument("-tr", required=True, help="class name")
    run(parser, _change_trainer, arguments, [])


def _change_trainer(options: argparse.Namespace) -> None:
    if any(options.i.glob("*/*.model.pkl")):
        raise UsageError(
            f"{options.i} is a model of nnU-Net v1, and pickles are not written here. Its trainer "
            "is not needed: nnUNet_predict, and 'nnunet models import', take it as it is."
        )
    if not any(options.i.glob("fold_*")) and not (options.i / "all").is_dir():
        raise UsageError(f"{options.i} holds no folds of a model.")
    note("nothing was changed: a model names its components, and no trainer is needed to predict")
