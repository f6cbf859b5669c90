"""Datasets by path, id or name: find the folder, ask the readers of plugins what is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nnunet_core.contracts.abilities import DescribesLabels, ability, built
from nnunet_core.contracts.dataset import DatasetReader
from nnunet_core.data.dataset import CaseFiles, Dataset, DatasetContent
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.data.meaning import read_codes
from nnunet_core.data.unused import left_out_messages
from nnunet_core.errors import (
    DatasetError,
    MissingFolderError,
    UsageError,
    counted,
    natural_order,
    nearest,
)
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.runtime import files
from nnunet_core.runtime.collecting import collector_rests
from nnunet_core.stages.formats import find_format

_FOLDER_NAME = re.compile(r"(?:Task|Dataset)(\d+)_(.+)")


@collector_rests()
def open_dataset(
    reference: str, raw: Path, registry: Registry, preprocessed: Path | None = None
) -> Dataset:
    """Open a dataset by path, by id (`4`, `004`) or by name (`Task004_Hippocampus`, `Hippocampus`)
    in the raw folder.

    Args:
        reference: Path, id or name.
        raw: Where ids and names are looked up.
        registry: Provides dataset readers and image formats.
        preprocessed: Of the workspace, to remember content digests in; None reads every file again.

    Raises:
        UsageError: There is no such dataset, or more than one.
        DatasetError: No reader fits the folder; it breaks its own description, is empty, or files
            of cases are missing.
    """
    folder = find_dataset(reference, raw, registry)
    found = find_reader(folder, registry).read(folder, registry)
    if not found.training:
        raise DatasetError(f"{folder} holds no training case; at least one is needed.")
    label_ending = found.label_ending or found.ending
    stored = None if preprocessed is None else preprocessed / folder.name / "digests.json"
    described = {"channels": found.channels, "labels": found.labels.model_dump(mode="json")}
    return Dataset(
        folder=folder,
        name=folder.name,
        channels=found.channels,
        labels=found.labels,
        ending=found.ending,
        image_format=find_format(found.ending, registry, found.image_format, folder),
        label_ending=label_ending,
        label_format=find_format(
            label_ending, registry, found.label_format, folder, "label_format"
        ),
        training=tuple(sorted(found.training, key=lambda case: case.name)),
        document=found.document or described,
        digests=files.Digests(stored),
        format_names=(found.image_format, found.label_format),
        original_values=found.original_values,
        tolerances=found.tolerances,
        codes=read_codes(found.document, found.labels, folder / "dataset.json"),
    )


def describe_labels(reference: str, raw: Path, registry: Registry) -> DatasetContent:
    """Return what a dataset says of its label files; where its reader can tell it without them, the
    cases need not be there (abilities.DescribesLabels).

    Args:
        reference: Path, id or name of a dataset, or a JSON file that describes one.
        raw: Where ids and names are looked up.
        registry: Provides dataset readers and image formats.

    Raises:
        UsageError: There is no such dataset, or no reader of such files.
        DatasetError: No reader fits the folder, or its description is invalid.
    """
    if not reference.endswith(".json"):
        source = find_dataset(reference, raw, registry)
        reader = find_reader(source, registry)
        describing = ability(reader, DescribesLabels)
        return (
            describing.describe(source, registry) if describing else reader.read(source, registry)
        )
    for resolved in sorted(registry.components("dataset_reader"), key=lambda r: not r.is_own):
        if describing := ability(built(resolved), DescribesLabels):
            return describing.describe(Path(reference).expanduser(), registry)
    raise UsageError(f"No dataset reader reads {reference}. Give the folder of the dataset.")


def find_dataset(reference: str, raw: Path, registry: Registry) -> Path:
    """Return the folder of a dataset; see `open_dataset`."""
    path = Path(reference).expanduser()
    if path.is_dir() and fitting_readers(path, registry):
        return path.absolute()
    known = sorted(p for p in raw.iterdir() if p.is_dir()) if raw.is_dir() else []
    hits = [folder for folder in known if is_named(folder.name, reference)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UsageError(
            f"'{reference}' names more than one dataset in {raw}: "
            f"{', '.join(h.name for h in hits)}."
        )
    if path.is_dir():
        return path.absolute()
    names = [folder.name for folder in known]
    made = [resolved.name for resolved in registry.components("dataset")]
    raise UsageError(
        f"There is no dataset '{reference}': no such folder, and no such id or name in "
        f"{raw}.{nearest(reference, [*names, *made])} Datasets there: "
        f"{', '.join(names) or 'none'}; made when asked for: {', '.join(made) or 'none'}."
    )


def is_named(folder_name: str, reference: str) -> bool:
    """Return whether a folder is that of a dataset's id or name."""
    match = _FOLDER_NAME.fullmatch(folder_name)
    by_id = bool(match and reference.isdigit() and int(match[1]) == int(reference))
    return reference == folder_name or by_id or bool(match and match[2] == reference)


def find_cases(folder: Path, dataset: Dataset, registry: Registry) -> tuple[CaseFiles, ...]:
    """List the cases of a folder of images, with every channel of a dataset or a `problem`, in the
    natural order of their names.

    Raises:
        MissingFolderError: There is no such folder.
        DatasetError: It is empty, no reader fits it, or no case has every channel (all that are
            missing are listed).
    """
    if not folder.exists():
        raise MissingFolderError(folder)
    if not any(not path.name.startswith(".") for path in folder.iterdir()):
        raise DatasetError(f"{folder} holds no images. It is empty.")
    if plain := _plain_cases(folder, dataset, registry):
        return plain
    if not fitting_readers(folder, registry):
        _raise_unfit(folder, dataset, registry)
    found = find_reader(folder, registry).cases(folder, dataset)
    return tuple(sorted(found, key=lambda case: natural_order(case.name)))


def remarks(dataset: Dataset, cases: Sequence[CaseFiles]) -> list[str]:
    """Return what the user should know of files that are not used as they are: those of no case,
    and the transparency of pictures.
    """
    alpha = alpha_message(dataset, cases)
    return [*left_out_messages(cases), *([alpha] if alpha else [])]


def alpha_message(dataset: Dataset, cases: Sequence[CaseFiles]) -> str:
    """Return what is done with the transparency of pictures; empty where the first has none."""
    channels = len(dataset.channels)
    if channels not in (1, 3) or not cases or len(cases[0].images) != 1:
        return ""
    try:
        header = dataset.image_format.header(cases[0].images[0])
    except DatasetError:  # loading the case will say why
        return ""
    if header.channels != channels + 1 or header.spacing[0] != SLICE_SPACING_2D:
        return ""
    return (
        f"{cases[0].images[0]} has an alpha channel (transparency) beside the "
        f"{counted(channels, 'channel')} that are declared; it is left out where it is constant, "
        "and an error where it is not."
    )


def _raise_unfit(folder: Path, dataset: Dataset, registry: Registry) -> None:
    """Raise what is wrong with a folder of images that no reader fits, and what ours miss in it."""
    try:
        find_reader(folder, registry)
    except DatasetError as error:
        missed = []
        for own in (r for r in registry.components("dataset_reader") if r.is_own):
            try:
                built(own).cases(folder, dataset)
            except DatasetError as problem:
                missed.append(str(problem))
        raise DatasetError(" ".join([str(error), *missed])) from error


def _plain_cases(source: Path, dataset: Dataset, registry: Registry) -> tuple[CaseFiles, ...]:
    """Return the cases of images without the number of a channel, which one channel needs not, in
    a folder that no reader fits.
    """
    if len(dataset.channels) > 1 or fitting_readers(source, registry):
        return ()
    ending, found = dataset.ending.lower(), {}
    for path in sorted(source.iterdir()):
        name = path.name
        if name.lower().endswith(ending) and not name.startswith(".") and path.is_file():
            found[name[: -len(ending)].removesuffix("_0000")] = path
    return tuple(CaseFiles(name, (path,)) for name, path in found.items())


def find_reader(folder: Path, registry: Registry) -> DatasetReader:
    """Return the reader of a folder (contracts.DatasetReader): one of ours, else the only one that
    fits.

    Raises:
        DatasetError: None fits, or several plugins' do.
    """
    fitting = fitting_readers(folder, registry)
    if len(fitting) == 1:
        return fitting[0][1]
    if fitting:
        names = ", ".join(resolved.reference for resolved, _ in fitting)
        raise DatasetError(
            f"Several dataset readers fit {folder}: {names}. Block the plugins of all but one with "
            "--no-plugin."
        )
    readers = registry.components("dataset_reader")
    shown = "; ".join(f"{r.reference} looks for {built(r).looks_for}" for r in readers)
    blocked = ", ".join(p.name for p in registry.plugins() if p.status != "active")
    hint = f" Plugins that are blocked or broken: {blocked}." if blocked else ""
    raise DatasetError(
        f"No dataset reader fits {folder}. Readers: {shown or 'none is active'}.{hint} See 'Use "
        "your own dataset' in the documentation."
    )


def fitting_readers(folder: Path, registry: Registry) -> list[tuple[Resolved, DatasetReader]]:
    """Return the readers that fit a folder; one of ours alone, so that nobody can take its
    folders.
    """
    readers = registry.components("dataset_reader")
    for own in (True, False):
        asked = [(resolved, built(resolved)) for resolved in readers if resolved.is_own == own]
        if fitting := [(resolved, reader) for resolved, reader in asked if reader.fits(folder)]:
            return fitting[:1] if own else fitting
    return []
