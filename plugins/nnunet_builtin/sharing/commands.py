"""`nnunet models export`, `install`, `download` and `onnx`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nnunet_builtin.sharing import manifest as m
from nnunet_builtin.sharing import pins
from nnunet_builtin.sharing.catalogue import Published, catalogue
from nnunet_builtin.sharing.downloading import downloaded
from nnunet_builtin.sharing.export import Exported, export, export_selected
from nnunet_builtin.sharing.install import install
from nnunet_cli import options as o
from nnunet_cli.commands.models import ModelArgument, find_model
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.store import inference
from nnunet_core.store.models import FILE as MODEL_FILE

_SHOWN = 500  # characters of a licence on the screen
OverwriteOption = Annotated[
    bool, typer.Option(help="Replace what is there, with all that is in its folder.")
]
TextOption = Annotated[
    str, typer.Option(help="The text, or a file that holds it.", show_default=False)
]


def export_model(
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder, DATASET/VARIANT/CONFIGURATION in the results, or the "
            "inference.json of 'nnunet find-best' for all of its models.",
            show_default=False,
        ),
    ],
    file: Annotated[Path, typer.Argument(help="Zip to write.", show_default=False)],
    folds: Annotated[
        str | None,
        typer.Option(help="Folds with commas between them; default: every numbered one."),
    ] = None,
    licence: TextOption = "",
    citation: TextOption = "",
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    workspace: o.WorkspaceOption = None,
) -> None:
    """Write a trained model, in a cascade with the stages before it, to one zip that 'nnunet models
    install' takes. It holds weights and what prediction needs: no case names, paths, logs,
    optimiser state.
    """
    _refuse_other(file, ".zip", overwrite)
    report = make_reporter()
    names = o.folds_of(folds) if folds else ()
    texts = _text(licence), _text(citation)
    if Path(model).name == inference.FILE:
        if names:
            raise UsageError(f"--folds cannot be chosen for {model}, which says them itself.")
        done = export_selected(Path(model), file, *texts, report)
    else:
        done = export(find_model(model, workspace), file, names, *texts, report)
    if not done.manifest.licence:
        report.warning(
            "the zip says nothing of its licence, so nobody knows what they may do with the model: "
            "add --licence"
        )
    print_exported(done)


def install_model(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL",
            help="What 'nnunet models export' wrote (.zip, or its content as .tar.gz): a file, or "
            "an address that begins with https:// or http://.",
            show_default=False,
        ),
    ],
    digest: Annotated[
        str | None,
        typer.Option(help="sha256:..., which the archive must have; 'models export' printed it."),
    ] = None,
    overwrite: OverwriteOption = False,
    workspace: o.WorkspaceOption = None,
) -> None:
    """Install a model from an archive, after every check: digests, sizes, formats, weights. Nothing
    in it is run.
    """
    report, results = make_reporter(), o.workspace_of(workspace).results
    registry, wanted = o.registry_of(context), _digest(digest)
    if "://" in source:
        with downloaded(source, results, report) as archive:
            found = m.digest_of(archive).digest
            done = install(archive, results, registry, overwrite, wanted, report)
            pins.note(source, found, [card.name for card in done.manifest.models], results)
    else:
        done = install(Path(source), results, registry, overwrite, wanted, report)
    _show(done.manifest)
    out().print(f"installed in {done.folders[-1]}", soft_wrap=True)
    for name in done.selections or [done.manifest.models[-1].name]:
        out().print(f"predict with: nnunet predict {name} IMAGES OUTPUT", soft_wrap=True)


def download_model(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name in the catalogue, or the number that it begins with; left out: list all.",
            show_default=False,
        ),
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence without being asked.")
    ] = False,
    overwrite: OverwriteOption = False,
    workspace: o.WorkspaceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Download a published model of nnU-Net v1 or v2, and import it; a download that broke off goes
    on. Without a name, list the catalogue.
    """
    if name is None:
        _list(catalogue().models, as_json)
        return
    model = catalogue().find(name)
    _describe(model)
    _accept(model, accept_licence)
    results = o.workspace_of(workspace).results
    # the command of another plugin, which is found as every command is
    importing = o.registry_of(context).resolve("command", "models import").load()
    for number, address in enumerate(model.files, start=1):
        out().print(f"archive {number} of {len(model.files)}: {address}", soft_wrap=True)
        already = pins.models_of(address, results)
        if already and not overwrite:
            out().print(f"imported before: {', '.join(already)}", soft_wrap=True)
            continue
        with downloaded(address, results, make_reporter()) as archive:
            digest, before = m.digest_of(archive).digest, _model_files(results)
            try:
                importing(context, archive, overwrite=overwrite, workspace=workspace)
            except UsageError as error:
                raise UsageError(
                    f"{error} The archive was kept; 'nnunet models import {archive}' takes "
                    "options that say more about it."
                ) from error
            made = sorted(_model_files(results) - before)
            pins.note(address, digest, [name for name, _ in made], results)


def _model_files(results: Path) -> set[tuple[str, int]]:
    """Return (name of a model, number that changes when it is replaced) of every model."""
    found = results.glob(f"*/*/*/{MODEL_FILE}")
    return {
        (path.parent.relative_to(results).as_posix(), path.stat().st_mtime_ns) for path in found
    }


def write_onnx(
    context: typer.Context,
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="ONNX file to write.", show_default=False)],
    fold: Annotated[
        str | None, typer.Option(help="Name of the fold; needed where several are trained.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run code that the model names and no installed plugin registers."
        ),
    ] = False,
    workspace: o.WorkspaceOption = None,
) -> None:
    """Write the network of a fold as ONNX, with fixed patch and in float32, and compare it with
    PyTorch. Preprocessing, sliding window and postprocessing stay the caller's.
    """
    from nnunet_builtin.sharing.onnx_export import write_onnx as write

    _refuse_other(file, ".onnx", overwrite)
    found = replace(find_model(model, workspace), trusted=trust)
    folds = [fold] if fold is not None else list(found.trained())
    if len(folds) != 1:
        raise UsageError(
            f"{found.folder} has the folds {', '.join(folds) or 'none'}. An ONNX file holds one: "
            "choose it with --fold."
        )
    difference = write(found, folds[0], file, o.registry_of(context), make_reporter())
    out().print(
        f"{file}  {file.stat().st_size / 1e6:.1f} MB, logits equal PyTorch's within "
        f"{difference:.1g}",
        soft_wrap=True,
    )


def _refuse_other(file: Path, ending: str, overwrite: bool) -> None:
    if file.suffix != ending:
        raise UsageError(f"{file} must end with {ending}, since it becomes such a file.")
    if file.exists() and not overwrite:
        raise StorageError(f"{file} exists already. Choose another name, or add --overwrite.")


def _list(models: Sequence[Published], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([model.model_dump(mode="json") for model in models], indent=1))
        return
    width = max(len(model.name) for model in models)
    for model in models:
        out().print(f"{model.name:{width}}  {model.description}", soft_wrap=True)
    out().print(
        "the licence of each is shown before it is taken: nnunet models download NAME",
        soft_wrap=True,
    )


def _describe(model: Published) -> None:
    lines = {
        "model": f"{model.name}, made by {model.framework}",
        "what": model.description,
        "channels": ", ".join(model.channels),
        "labels": ", ".join(model.labels),
        "licence": model.licence,
        "see": model.about,
    }
    for title, text in lines.items():
        out().print(f"{title:9} {text}", soft_wrap=True)


def _accept(model: Published, accepted: bool) -> None:
    """Ask a person; elsewhere, let nothing be taken unasked.

    Raises:
        UsageError: It was not accepted.
    """
    if accepted:
        return
    if sys.stdin.isatty() and typer.confirm("Do you accept this licence?"):
        return
    raise UsageError(
        f"The licence of {model.name} was not accepted, so nothing was downloaded. Read it at "
        f"{model.about}, then add --accept-licence."
    )


def _text(given: str) -> str:
    """Return a text of the command line, or what is in the file that it names.

    Raises:
        UsageError: The file is no text.
    """
    path = Path(given)
    try:
        if not given or not path.is_file():
            return given
        return path.read_text(encoding="utf-8")
    except OSError:  # too long to name a file
        return given
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8: {error}.") from error


def _digest(given: str | None) -> str | None:
    """Return a digest in the form of manifests.

    Raises:
        UsageError: It has another form.
    """
    if given is None:
        return None
    digits = given.strip().lower().removeprefix("sha256:")
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise UsageError(
            f"--digest {given} is no SHA-256: 'sha256:' and 64 hexadecimal digits, as 'nnunet "
            "models export' and 'sha256sum' print them."
        )
    return f"sha256:{digits}"


def print_exported(done: Exported) -> None:
    """Print what was exported, for whoever gives it away."""
    _show(done.manifest)
    size = done.file.stat().st_size / 1e6
    out().print(f"digest    {done.digest}", soft_wrap=True)
    out().print(f"{done.file}  {size:.1f} MB", soft_wrap=True)
    out().print(f"install it with: nnunet models install {done.file}", soft_wrap=True)


def _show(manifest: m.Manifest) -> None:
    """Print what a model is, for whoever gets it."""
    card = manifest.models[-1]
    values = [f"{value} {name}" for value, name in card.labels.names.items()]
    lines = {
        "model": card.name,
        "and": ", ".join(other.name for other in manifest.models[:-1]),
        "channels": ", ".join(card.channels),
        "labels": ", ".join(values) or ", ".join(card.labels.region_names),
        "spacing": " x ".join(f"{mm:g}" for mm in card.spacing) + " mm (z, y, x)",
        "folds": ", ".join(card.folds),
        "packages": ", ".join(f"{name} {version}" for name, version in card.packages.items()),
        "Dice": _dice(card),
        "licence": _short(manifest.licence) or "not stated",
        "cite": _short(manifest.citation),
    }
    for title, text in lines.items():
        if text:
            out().print(f"{title:9} {text}", soft_wrap=True)


def _dice(card: m.Card) -> str:
    if card.scores is None:
        return ""
    means = card.scores.mean
    names = {str(value): name for value, name in card.labels.names.items()}
    found = {k: row.get("Dice") for k, row in means.items() if k != "0"}
    shown = [f"{names.get(k, k)} {v:.4f}" for k, v in found.items() if v is not None]
    return f"{', '.join(shown)} (mean of {card.scores.cases} validation cases)" if shown else ""


def _short(text: str) -> str:
    """Return a text of a stranger for the screen: a line, without what controls terminals."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} ... (whole in {m.FILE})"
