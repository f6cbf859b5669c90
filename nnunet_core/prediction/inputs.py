"""What a user names to predict: the cases of a folder, files, or series that are recognised by
their content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_core.contracts.abilities import FindsSeries, built
from nnunet_core.data.dataset import CaseFiles, Dataset
from nnunet_core.data.images import ImageFormat, ending_of
from nnunet_core.errors import (
    DatasetError,
    MissingFolderError,
    PluginError,
    UsageError,
    counted,
    listed,
    natural_order,
)
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import find_cases
from nnunet_core.stages.formats import find_format, known_endings
from nnunet_core.store.models import FILE as MODEL_FILE
from nnunet_core.store.models import Model

_CHANNEL = re.compile(r"(.+)_(\d{4})")


def dataset_of(model: Model, source: Path, registry: Registry) -> Dataset:
    """Return a dataset without training cases that reads images as the model's dataset did."""
    document, file = model.document, model.folder / MODEL_FILE
    return Dataset(
        folder=source,
        name=document.dataset,
        channels=document.channels,
        labels=document.labels,
        ending=document.file_ending,
        image_format=find_format(document.file_ending, registry, document.image_format, file),
        label_ending=document.label_ending,
        label_format=find_format(
            document.label_ending, registry, document.label_format, file, "label_format"
        ),
        training=(),
        document={},
    )


def find_inputs(
    places: Sequence[Path], dataset: Dataset, registry: Registry
) -> tuple[Dataset, tuple[CaseFiles, ...]]:
    """Find the cases that a user means.

    Args:
        places: One folder of cases; or files, or folders of a series each. With one channel each is
            a case. With several, `CASE_0000`, `CASE_0001` ... are the channels of a case; other
            names are the channels of one case, in their order.
        dataset: Reads images as those of the training were read.
        registry: Of the image formats.

    Returns:
        The dataset, with the format that reads these images, and the cases in natural order.

    Raises:
        MissingFolderError: There is no such file or folder.
        DatasetError: No case, or channels of every case are missing or too many; a case that lacks
            some beside complete ones has a `problem`.
        UsageError: Files of several formats, or one of them twice.
    """
    for place in places:
        if not place.exists():
            raise MissingFolderError(place, kind="file or folder")
    if len(places) == 1 and places[0].is_dir():
        return _of_folder(places[0], dataset, registry)
    if folders := [place for place in places if place.is_dir()]:
        found = {folder: _series(folder, registry) for folder in places if folder.is_dir()}
        if len(folders) < len(places) or not all(found.values()):
            raise UsageError(
                f"Several images are given, and {listed([str(f) for f in folders])} among them. "
                "Give one folder of cases, or files, or folders of which each is one series."
            )
        formats = [formats[0] for formats in found.values() if formats is not None]
        named: dict[str, Path] = {}
        for folder in places:
            if (other := named.setdefault(folder.absolute().name, folder)) is not folder:
                raise UsageError(_twice(other, folder))
        other_format = replace(dataset, image_format=formats[0])
        return other_format, _cases(named, dataset, formats[0])
    return _of_files(places, dataset, registry)


def _of_folder(
    folder: Path, dataset: Dataset, registry: Registry
) -> tuple[Dataset, tuple[CaseFiles, ...]]:
    """Return the cases of a folder: of the model's ending, series, or files of one other ending."""
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if not any(name.lower().endswith(dataset.ending.lower()) for name in names):
        if found := _series(folder, registry):
            image_format, series = found
            other = replace(dataset, image_format=image_format)
            return other, _cases(dict(series), other, image_format)
        known = known_endings(registry)
        endings = {ending for name in names if (ending := ending_of(name, known))}
        if len(endings) == 1:
            dataset = _with_ending(dataset, endings.pop(), registry)
    return dataset, find_cases(folder, dataset, registry)


def _of_files(
    files: Sequence[Path], dataset: Dataset, registry: Registry
) -> tuple[Dataset, tuple[CaseFiles, ...]]:
    endings = {_ending(path, dataset, registry) for path in files}
    if len(endings) > 1:
        raise UsageError(
            f"The images end in {listed(sorted(endings))}; those of one prediction have one ending."
        )
    (ending,) = endings
    if ending != dataset.ending:
        dataset = _with_ending(dataset, ending, registry)
    named: dict[str, Path] = {}
    for path in files:
        name = path.name[: -len(ending)]
        if name in named:
            raise UsageError(_twice(named[name], path))
        named[name] = path
    return dataset, _cases(named, dataset, dataset.image_format)


def _twice(first: Path, second: Path) -> str:
    if first.resolve() == second.resolve():
        return f"{first} is given twice. Give each image, and each channel of a case, once."
    return f"{first} and {second} are two images of one name. Predict them one by one."


def _ending(path: Path, dataset: Dataset, registry: Registry) -> str:
    if path.name.lower().endswith(dataset.ending.lower()):
        return dataset.ending
    known = known_endings(registry)
    if ending := ending_of(path.name, known):
        return ending
    raise DatasetError(
        f"{path} does not end in '{dataset.ending}' as the model's images do, nor in another "
        f"known ending: {', '.join(sorted(known))}."
    )


def _with_ending(dataset: Dataset, ending: str, registry: Registry) -> Dataset:
    return replace(dataset, ending=ending, image_format=find_format(ending, registry))


def _series(folder: Path, registry: Registry) -> tuple[ImageFormat, Mapping[str, Path]] | None:
    """Return the format whose series a folder holds or is, and {name: series}."""
    for image_format in _series_formats(registry):
        if found := image_format.find_series(folder):
            return image_format, found
    return None


def _series_formats(registry: Registry) -> Iterator[Any]:
    for resolved in registry.components("image_format"):
        try:
            image_format = built(resolved)
        except PluginError:  # it fails what needs it, not every prediction
            continue
        if isinstance(image_format, FindsSeries):
            yield image_format


def _cases(
    named: Mapping[str, Path], dataset: Dataset, image_format: ImageFormat
) -> tuple[CaseFiles, ...]:
    """Return the cases of {name without ending: image}."""
    channels = len(dataset.channels)
    if channels == 1:
        found: dict[str, Path] = {}
        for name, path in named.items():
            if (other := found.setdefault(name.removesuffix("_0000"), path)) is not path:
                raise UsageError(_twice(other, path))
        cases = [CaseFiles(name, (path,)) for name, path in found.items()]
    else:
        cases = _grouped(named, dataset, image_format)
    return tuple(sorted(cases, key=lambda case: natural_order(case.name)))


def _channels_of(groups: Mapping[str, Mapping[int, Path]], dataset: Dataset) -> list[CaseFiles]:
    """Return the cases of {case: {channel: image}}; those that lack one have a problem, as long as
    there are others.
    """
    channels, cases = len(dataset.channels), []
    for name, images in groups.items():
        problem = ""
        if sorted(images) != list(range(channels)):
            shown = ", ".join(f"{number:04d}" for number in sorted(images))
            problem = (
                f"Case {name} has the channels {shown}; 0000 to {channels - 1:04d} are needed "
                f"({', '.join(dataset.channels)})."
            )
        there = tuple(images[number] for number in sorted(images))
        cases.append(CaseFiles(name, there, problem=problem))
    if all(case.problem for case in cases):
        raise DatasetError(cases[0].problem)
    return cases


def _grouped(
    named: Mapping[str, Path], dataset: Dataset, image_format: ImageFormat
) -> list[CaseFiles]:
    """Return the cases of {name without ending: image}; several channels are needed."""
    channels = len(dataset.channels)
    matches = {name: _CHANNEL.fullmatch(name) for name in named}
    groups: dict[str, dict[int, Path]] = {}
    for name, match in matches.items():
        if match is not None:
            groups.setdefault(match[1], {})[int(match[2])] = named[name]
    if sum(map(len, groups.values())) == len(named):
        return _channels_of(groups, dataset)
    (first, path), paths = next(iter(named.items())), tuple(named.values())
    if len(paths) == channels:
        return [CaseFiles(first, paths)]
    held = image_format.header(path).channels if len(paths) == 1 else len(paths)
    if held == channels:
        return [CaseFiles(first, paths)]
    raise DatasetError(
        f"{listed([str(p) for p in paths])}: {counted(held, 'channel')} of the {channels} that are "
        f"needed ({', '.join(dataset.channels)}). Give every file of the case in this order, or "
        "the folder that holds them."
    )
