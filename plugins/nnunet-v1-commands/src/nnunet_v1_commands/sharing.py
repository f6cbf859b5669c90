"""v1's commands that share models: export, install, download, and what is published."""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nnunet_core.errors import StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_v1_commands.methods import method_of
from nnunet_v1_commands.plugin import PLANS
from nnunet_v1_commands.running import (
    CONFIGURATIONS,
    RESULTS,
    nnunet,
    note,
    run,
    task_name,
    workspace,
)

if TYPE_CHECKING:
    from nnunet_builtin.sharing.catalogue import Published

_MANIFEST = "manifest.json"  # of an export of ours


def export(arguments: Sequence[str] | None = None) -> None:
    """Write the models of a task to one zip."""
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
    registry, task = Registry.discover(), task_name(options.t)
    models = []
    for name in options.m:
        try:
            models.append(
                method_of(name, options.tr, options.trc, options.pl).model(task, registry)
            )
        except UsageError as error:
            if not options.disable_strict:
                raise
            note(f"{name} is left out: {error}")
    if not models:
        raise UsageError(f"There is no model of {task} to export.")
    folds = ["--folds", ",".join(options.f)]
    if len(models) == 1:
        nnunet("models", "export", models[0], options.o, *folds, "--overwrite")
        return
    options.o.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.o.parent) as folder:
        parts = [Path(folder) / f"{model.name}.zip" for model in models]
        for model, part in zip(models, parts, strict=True):
            nnunet("models", "export", model, part, *folds)
        whole = Path(folder) / "whole"
        with zipfile.ZipFile(whole, "w") as archive:
            for part in parts:
                archive.write(part, part.name)
        whole.replace(options.o)
    typer.echo(f"{options.o}: {', '.join(part.name for part in parts)}")


def install(arguments: Sequence[str] | None = None) -> None:
    """Install the models of a zip, of ours or of v1."""
    parser = argparse.ArgumentParser(
        "nnUNet_install_pretrained_model_from_zip", description=install.__doc__
    )
    parser.add_argument("zip", type=Path)
    run(parser, lambda options: install_zip(options.zip), arguments, [RESULTS])


def install_zip(path: Path) -> None:
    """Install or import a zip, by what is in it.

    Raises:
        StorageError: It is no zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path} cannot be read as a zip: {error}.") from error
    if {f"{name}.zip" for name in CONFIGURATIONS} >= set(names) and names:
        _install_parts(path)
    elif any(Path(name).name == _MANIFEST and name.count("/") < 2 for name in names):
        nnunet("models", "install", path, "--overwrite")
    else:
        nnunet("models", "import", path, "--overwrite")


def _install_parts(path: Path) -> None:
    """Install each model of what `nnUNet_export_model_to_zip` wrote of several."""
    from nnunet_builtin.untrusted.archives import unpacked

    with unpacked(path, workspace().results / "install") as folder:
        for part in sorted(folder.rglob("*.zip")):
            nnunet("models", "install", part, "--overwrite")


def download(arguments: Sequence[str] | None = None) -> None:
    """Download the published models of a task of v1."""
    parser = argparse.ArgumentParser(
        "nnUNet_download_pretrained_model", description=download.__doc__
    )
    parser.add_argument("task_name")
    parser.add_argument("--accept-licence", action="store_true", help="do not ask")
    run(parser, _download, arguments, [RESULTS])


def _download(options: argparse.Namespace) -> None:
    accepted = ["--accept-licence"] if options.accept_licence else []
    nnunet("models", "download", options.task_name, *accepted)


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
