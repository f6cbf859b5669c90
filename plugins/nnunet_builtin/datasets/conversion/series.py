"""Folders of series (DICOM), whose format finds them, with labels of its own or with label files of
other formats.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nnunet_builtin.datasets.conversion.listing import list_images
from nnunet_builtin.datasets.conversion.source import FileLabels, LabelReader, Source, writers_of
from nnunet_builtin.datasets.conversion.values import found_values, name_values
from nnunet_builtin.datasets.naming import by_channel
from nnunet_core.data.dataset import CaseFiles
from nnunet_core.errors import DatasetError, PluginError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.formats import find_format


@runtime_checkable
class SeriesFormat(Protocol):
    """An image format whose images are recognised by their content, not by their names: a
    conversion asks it first.
    """

    def find_series(self, folder: Path) -> Mapping[str, Path]:
        """Return {name: image} of a folder, sorted; empty when it holds none. Raises DatasetError
        where it is ambiguous.
        """
        ...

    def channel_name(self, path: Path) -> str:
        """Return the name of the channel that an image says it is: `CT`, `MRI`, ... Raises
        ImageError.
        """
        ...

    def find_labels(
        self, place: Path, images: Mapping[str, Path], values: Mapping[str, int]
    ) -> tuple[Mapping[str, Path], Mapping[str, int], LabelReader] | None:
        """Find the labels of images {case: image} in a folder or file.

        Args:
            place: Folder of label files, or one of them.
            images: One image per case.
            values: {label name: value} that the user asks for; empty numbers them.

        Returns:
            {case: label file}, {label name: value} with the background, and what reads the files to
            these values; None where the labels are files of other formats.

        Raises:
            DatasetError: Labels and images do not belong to each other.
            UsageError: `values` lacks labels.
        """
        ...


def series_formats(registry: Registry) -> Iterator[Any]:
    """Yield the installed formats that find images by their content (see `SeriesFormat`)."""
    for resolved in registry.components("image_format"):
        try:
            target = resolved.load()
        except PluginError:  # it fails what needs it, not every conversion
            continue
        if issubclass(target, SeriesFormat):
            yield build(resolved)


def find_series(
    images: Path,
    labels: Path,
    registry: Registry,
    channels: Sequence[str],
    names: Mapping[str, int],
    renumber: bool,
    workers: Workers,
) -> Source | None:
    """Describe series with their labels; arguments and errors as `find_folders`. None when there
    are no series.

    With n > 1 channel names, series `CASE_0000`, `CASE_0001`, ... are the channels of a case. Label
    files that are none of the format's own are named as the case.
    """
    for image_format in series_formats(registry):
        if found := image_format.find_series(images):
            break
    else:
        return None
    cases = _cases(images, found, len(channels))
    first = {name: paths[0] for name, paths in cases.items()}
    named = sorted({image_format.channel_name(path) for path in first.values()})
    if not channels and len(named) > 1:
        raise DatasetError(
            f"{images} holds series of several modalities: {', '.join(named)}. Give every case the "
            "same."
        )
    describe = functools.partial(
        Source,
        kind="dicom",
        inputs=(images, labels),
        channels=tuple(channels) or (named[0],),
        test=(),
        image_ending="",
        image_format=image_format,
        writers=writers_of(registry, ""),
    )
    own = image_format.find_labels(labels, first, names)
    if own is not None:
        matched, named_values, reader = own
        training = _labelled(cases, matched)
        return describe(
            training=training, labels=named_values, label_ending="", label_reader=reader
        )
    files, ending = _label_files(cases, labels, registry)
    label_format = find_format(ending, registry)
    held = found_values(label_format, list(files.values()), workers)
    values, mapping = name_values(held, names, renumber)
    return describe(
        training=_labelled(cases, files),
        labels=values,
        label_ending=ending,
        label_reader=FileLabels(label_format, mapping),
        further={"renumbered": {str(old): new for old, new in mapping.items()}} if mapping else {},
    )


def _labelled(
    cases: Mapping[str, tuple[Path, ...]], labels: Mapping[str, Path]
) -> tuple[CaseFiles, ...]:
    return tuple(CaseFiles(name, paths, labels[name]) for name, paths in cases.items())


def _cases(images: Path, found: Mapping[str, Path], channels: int) -> dict[str, tuple[Path, ...]]:
    """Return {case name: series in channel order}, sorted by name."""
    if channels < 2:
        return {name: (path,) for name, path in found.items()}
    grouped = by_channel(found)
    wrong = [name for name, case in grouped.items() if sorted(case) != list(range(channels))]
    if wrong or sum(len(case) for case in grouped.values()) != len(found):
        raise DatasetError(
            f"{images}: with {channels} channels, every case has folders CASE_0000 to "
            f"CASE_{channels - 1:04d}; found {', '.join(sorted(found)[:6])}. Rename the folders, "
            "or give one --channel."
        )
    return {name: tuple(case[c] for c in range(channels)) for name, case in sorted(grouped.items())}


def _label_files(
    cases: Mapping[str, tuple[Path, ...]], labels: Path, registry: Registry
) -> tuple[dict[str, Path], str]:
    listing = list_images(labels, registry)
    if missing := [name for name in cases if name not in listing.files]:
        raise DatasetError(
            f"{labels} lacks the labels of the series {', '.join(missing[:5])} "
            f"(CASE{listing.ending})."
        )
    return {name: listing.files[name] for name in cases}, listing.ending
