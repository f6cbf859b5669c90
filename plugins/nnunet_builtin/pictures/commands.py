"""`nnunet dataset sheet`: every training case of a dataset in one picture; `nnunet overlay`: label
maps over their images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nnunet_builtin.pictures.drawing import contact_sheet, overlay_picture
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.data.images import Image, ImageFormat, ending_of
from nnunet_core.data.labels import Labels
from nnunet_core.data.orientation import turned_like
from nnunet_core.errors import (
    DatasetError,
    ImageError,
    MissingFolderError,
    UsageError,
    counted,
    natural_order,
)
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.evaluate import read_label_image
from nnunet_core.stages.formats import find_format, known_endings
from nnunet_core.store.predictions import RECORD, PredictionRecord

_PNG = ".png"


def sheet(
    context: typer.Context,
    dataset: o.DatasetArgument,
    output: Annotated[Path, typer.Argument(help="PNG to write.", show_default=False)],
    workspace: o.WorkspaceOption = None,
) -> None:
    """Draw every training case with its labels, through the slice that shows most of them, to one
    PNG.
    """
    data = open_dataset(dataset, o.workspace_of(workspace).raw, o.registry_of(context))
    contact_sheet((data.load(case) for case in data.training), output, data.labels)
    typer.echo(f"contact sheet: {output}", err=True)


def overlay(
    context: typer.Context,
    images: Annotated[
        Path,
        typer.Argument(
            help="Folder of images CASE_0000.ext or CASE.ext, or one image.", show_default=False
        ),
    ],
    label_maps: Annotated[
        Path,
        typer.Argument(
            help="Folder of label maps CASE.ext, as 'nnunet predict' writes it, or one label map.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(help="Folder of CASE.png; of one label map, or a PNG.", show_default=False),
    ],
    channel: Annotated[
        int,
        typer.Option(
            min=0,
            max=9999,
            help="Channel that is drawn, from 0 on: 1 is CASE_0001.ext, or the second one of a "
            "file that holds several.",
        ),
    ] = 0,
) -> None:
    """Draw label maps over a channel of their images, a PNG for each case."""
    registry = o.registry_of(context)
    one = output.suffix.lower() == _PNG
    found = _pairs(images, label_maps, registry, channel)
    pairs = sorted(found, key=lambda pair: natural_order(pair[0]))
    if one and len(pairs) > 1:
        raise UsageError(
            f"{output} is one picture; there are {counted(len(pairs), 'label map')} to draw. Give "
            "a folder as OUTPUT."
        )
    record = (label_maps if label_maps.is_dir() else label_maps.parent) / RECORD
    labels = PredictionRecord.read(record).labels if record.is_file() else None
    with make_reporter().track("draw", len(pairs)) as tracker:
        for case, image, index, label_map in pairs:
            path = output if one else output / f"{case}{_PNG}"
            path.parent.mkdir(parents=True, exist_ok=True)
            _draw(case, image, index, label_map, path, labels, registry)
            tracker.advance(1, case)
    out().print(
        str(output) if one else f"{counted(len(pairs), 'picture')} in {output}",
        soft_wrap=True,
        markup=False,
    )


def _pairs(
    images: Path, label_maps: Path, registry: Registry, channel: int
) -> Iterator[tuple[str, Path, int, Path]]:
    """Yield (case, image, channel in its file, label map).

    Raises:
        MissingFolderError, UsageError, DatasetError: There is none, or an image is missing.
    """
    for place in (images, label_maps):
        if not place.exists():
            raise MissingFolderError(place)
    known = known_endings(registry)
    maps = _cases(label_maps, known)
    if not maps:
        raise DatasetError(
            f"{label_maps} holds no label map CASE.ext. Known endings: {', '.join(sorted(known))}."
        )
    if not images.is_dir():
        if len(maps) > 1:
            raise UsageError(f"{images} is one image; {label_maps} holds several label maps.")
        yield next(iter(maps)), images, channel, next(iter(maps.values()))
        return
    found = _cases(images, known)
    for case, label_map in maps.items():
        own = found.get(f"{case}_{channel:04d}")
        image = own or found.get(f"{case}_0000") or found.get(case)
        if image is None:
            raise DatasetError(
                f"{images} holds no image {case}_{channel:04d}.ext or {case}.ext of {label_map}. "
                "Name the folder that was predicted; an image under another name is drawn alone: "
                "nnunet overlay IMAGE LABEL_MAP OUTPUT.png"
            )
        yield case, image, 0 if own else channel, label_map


def _cases(place: Path, known: set[str]) -> dict[str, Path]:
    """Return {name without ending: file} of one file, or of the files of a folder."""
    paths = [place] if place.is_file() else [p for p in sorted(place.iterdir()) if p.is_file()]
    shown = [path for path in paths if not path.name.startswith(".")]
    endings = ((path, ending_of(path.name, known)) for path in shown)
    return {path.name[: -len(ending)]: path for path, ending in endings if ending}


def _draw(
    case: str,
    image: Path,
    channel: int,
    label_map: Path,
    path: Path,
    labels: Labels | None,
    registry: Registry,
) -> None:
    """Draw a case; labels that nothing names are called by their values.

    Raises:
        ImageError: A file cannot be read, it has no such channel, or the two lie on other grids.
    """
    shown = read_label_image(label_map, _format(label_map, registry))
    behind = turned_like(_format(image, registry).read(image), shown.geometry)
    if difference := shown.geometry.contrast(behind.geometry, "label map", "image"):
        raise ImageError(f"{label_map} is no label map of {image}: {difference}.")
    if channel >= len(behind.array):
        raise ImageError(
            f"{image} holds {counted(len(behind.array), 'channel')}; --channel {channel} is none "
            "of them, and no other file of the case is. Channels count from 0."
        )
    overlay_picture(
        behind.array[channel],
        None,
        shown.array[0],
        title=case,
        path=path,
        spacing=shown.geometry.spacing,
        labels=labels or _numbered(shown),
        direction=shown.geometry.direction,
    )


def _format(path: Path, registry: Registry) -> ImageFormat:
    ending = ending_of(path.name, known_endings(registry))
    return find_format(ending or path.suffix, registry, source=path)


def _numbered(shown: Image) -> Labels:
    values = tuple(int(value) for value in np.unique(shown.array) if value)
    return Labels(names={0: "background", **{v: f"label {v}" for v in values}}, foreground=values)
