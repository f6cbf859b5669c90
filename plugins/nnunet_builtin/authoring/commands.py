"""`nnunet plugins new` and `nnunet plugins upgrade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_builtin.authoring import packages
from nnunet_builtin.authoring.answers import Answers, checked_kinds, checked_name
from nnunet_builtin.authoring.kinds import KINDS
from nnunet_cli import options as o
from nnunet_core import __version__
from nnunet_core.errors import MissingFolderError, StorageError

_TOLD = {
    "conflict": "both changed: decide between the marks",
    "kept": "as you left it; the template has changed",
    "merged": "your changes and those of the template",
}


def _complete_kind(incomplete: str) -> list[str]:
    """Offer what has a template."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def new(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Of the package, for example topk-variant.", show_default=False)
    ],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What it holds; repeatable. {', '.join(KINDS)}. Default: variant.",
            autocompletion=_complete_kind,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder that is made; default: NAME, here.")
    ] = None,
) -> None:
    """Make a package of a plugin that can be installed: a working part of each kind, tests that
    pass, README.md, CONTRACT.md and a CI file.
    """
    kinds = checked_kinds(kind or ["variant"])
    answers = Answers(name=checked_name(name, o.registry_of(context).plugins()), kinds=kinds)
    folder = output or Path(name)
    for path in packages.make(folder, answers):
        typer.echo(f"  {folder / path}")
    typer.echo(
        f"made {folder}: {', '.join(KINDS[k].word for k in kinds)}. Next:\n\n"
        f'  pip install -e "{folder}[test]"\n'
        f"  pytest {folder}\n"
        f"  nnunet plugins check {name}\n\n"
        f"What each file is for: {folder / 'README.md'}"
    )


def upgrade(
    folder: Annotated[Path, typer.Argument(help="Of a package that 'plugins new' made.")] = Path(),
    kind: Annotated[
        list[str] | None,
        typer.Option(help="What it gets in addition; repeatable.", autocompletion=_complete_kind),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would happen; write nothing.")] = False,
) -> None:
    """Take what is new in the template into a package, and keep what you have written. Where both
    changed the same lines, both stand in the file between marks, and the exit code is 1.
    """
    if not folder.is_dir():
        raise MissingFolderError(folder)
    origin, found = packages.changes(folder, kind or ())
    if not dry_run:
        packages.apply(folder, origin, found)
    for change in found:
        told = _TOLD.get(change.state, "")
        typer.echo(f"  {change.state:8}  {folder / change.path}{told and f'  ({told})'}")
    if not found:
        typer.echo(f"{folder} is as the template of nnunet-core {__version__} makes it.")
    if conflicts := [change.path for change in found if change.state == "conflict"]:
        would = "would have" if dry_run else "have"
        raise StorageError(
            f"{', '.join(conflicts)} {would} lines that both you and the template changed, between "
            "'<<<<<<< yours' and '>>>>>>> template'. Keep the right ones and remove the marks."
        )
