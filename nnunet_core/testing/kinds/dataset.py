"""Checks of dataset readers and of datasets that are made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from nnunet_core.contracts.dataset import DatasetReader
from nnunet_core.data.dataset import Dataset, DatasetContent
from nnunet_core.errors import DatasetError
from nnunet_core.runtime.names import is_plain
from nnunet_core.runtime.reporting import Silence
from nnunet_core.stages.dataset import find_cases, open_dataset
from nnunet_core.testing.check import Subject, check, require, skip
from nnunet_core.testing.files import contents
from nnunet_core.testing.toys import NAMES


@check("dataset_reader")
def reader_fits_only_its_layout(subject: Subject) -> None:
    """`fits` is a plain True or False, never an error, and False for a folder without a dataset."""
    reader = subject.build()
    require(isinstance(reader.looks_for, str) and reader.looks_for, "looks_for is no text.")
    foreign = subject.folder / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("nothing here")
    garbage = subject.folder / "garbage"
    garbage.mkdir()
    (garbage / "unrelated.json").write_bytes(b"\xff{")
    (subject.folder / "empty").mkdir()
    for name in ("empty", "foreign", "garbage"):
        found = reader.fits(subject.folder / name)
        require(found is False, f"fits says {found!r} of a folder that is {name}.")
    for folder in _datasets(subject, reader):
        found = reader.fits(folder)
        require(found is True, f"fits says {found!r} of {folder.name}.")


@check("dataset_reader")
def reader_reads_every_case(subject: Subject) -> None:
    """Training cases have plain names of their own, files that exist, an image for each channel and
    a label; the first can be loaded.
    """
    reader = subject.build()
    for folder in _datasets(subject, reader):
        content = _read(reader, folder, subject)
        names = [case.name for case in content.training]
        require(names, f"{folder.name}: there is no training case.")
        require(len(set(names)) == len(names), f"{folder.name}: two cases have one name.")
        for case in content.training:
            where = f"{folder.name}, case {case.name}"
            require(is_plain(case.name), f"{where}: the name cannot be that of a file.")
            require(case.label is not None, f"{where}: a training case needs a label.")
            images, channels = len(case.images), len(content.channels)
            require(images in {1, channels}, f"{where}: {images} images for {channels} channels.")
            absent = [str(path) for path in case.paths if not path.exists()]
            require(not absent, f"{where}: {', '.join(absent)} does not exist.")
        if reader.fits(folder):
            dataset = open_dataset(str(folder), subject.folder, subject.registry)
            require(
                sorted(dataset.names) == sorted(names),
                f"{folder.name}: another reader is asked first, and reads other cases.",
            )
            dataset.load(dataset.training[0])


@check("dataset_reader")
def reader_is_deterministic(subject: Subject) -> None:
    """The same folder gives the same content, and nothing is written into it."""
    for folder in _datasets(subject, subject.build()):
        before = contents(folder)
        first, second = (_read(subject.build(), folder, subject) for _ in range(2))
        require(first == second, f"{folder.name}: another content the second time.")
        require(contents(folder) == before, f"{folder.name}: files in it changed.")


@check("dataset_reader")
def reader_lists_cases_to_predict(subject: Subject) -> None:
    """A folder of images gives cases without labels, with an image for each channel."""
    reader, seen = subject.build(), False
    for folder in _datasets(subject, reader):
        content = _read(reader, folder, subject)
        images = content.training[0].images[0].parent
        if images == folder or not reader.fits(images):
            continue
        seen = True
        cases = reader.cases(images, _dataset(subject, folder))
        require(cases, f"{folder.name}: no case in {images.name}.")
        for case in cases:
            require(case.label is None, f"{folder.name}: case {case.name} has a label.")
            require(
                len(case.images) in {1, len(content.channels)},
                f"{folder.name}: case {case.name} has {len(case.images)} images.",
            )
    if not seen:
        skip("Its images do not lie in a folder of their own.")


@check("dataset_reader")
def reader_names_a_missing_file(subject: Subject) -> None:
    """A dataset that lacks the label of a case is a DatasetError that names the case."""
    reader = subject.build()
    for folder in _datasets(subject, reader):
        copy = subject.folder / folder.name
        shutil.copytree(folder, copy)
        case = _read(reader, copy, subject).training[0]
        label = case.label
        if label is None or copy not in label.parents:
            skip("Its labels lie elsewhere.")
        label.unlink()
        try:
            content = reader.read(copy, subject.registry)
        except DatasetError as error:
            named = label.name in str(error) or case.name in str(error)
            require(named, f"The error names neither {label.name} nor {case.name}: {error}")
            return
        paths = [path for case in content.training for path in case.paths]
        require(label not in paths, f"read lists {label.name}, which does not exist.")
        require(
            False,
            f"read leaves out the case whose label {label.name} is missing; it must be an error.",
        )


@check("dataset")
def dataset_is_made_once(subject: Subject) -> None:
    """It lies in the folder that it is given; the second time it is found, and not made anew."""
    folder = _made(subject, "raw")
    require(folder.parent == subject.folder / "raw", f"{folder} does not lie in the raw folder.")
    before = contents(folder)
    again = subject.build().make(subject.folder / "raw", Silence())
    require(again == folder, f"The second time it is {again.name}, not {folder.name}.")
    require(contents(folder) == before, "Files changed the second time.")


@check("dataset")
def dataset_is_the_same_everywhere(subject: Subject) -> None:
    """Made in another folder it has the same files."""
    first, second = (contents(_made(subject, name)) for name in ("here", "there"))
    changed = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    require(not changed, f"Other files in another folder: {', '.join(changed[:5])}.")


@check("dataset")
def dataset_can_be_run(subject: Subject) -> None:
    """A reader reads it; its variant exists, its folds exist, and so does what is predicted."""
    maker, folder = subject.build(), _made(subject, "raw")
    dataset = open_dataset(str(folder), subject.folder / "raw", subject.registry)
    dataset.load(dataset.training[0])
    if maker.variant:
        subject.registry.variant(maker.variant)
    strange = [fold for fold in maker.folds if fold != "all" and not fold.isdigit()]
    require(not strange, f"folds are {maker.folds}; they must be numbers, or 'all'.")
    if maker.predict:
        require(find_cases(folder / maker.predict, dataset, subject.registry), "Nothing to predict")


def _datasets(subject: Subject, reader: DatasetReader) -> Iterator[Path]:
    """Yield the folders that a reader has to read: the given one, or the toys that it fits."""
    if subject.example is not None:
        yield subject.example
        return
    fitting = [folder for name in NAMES if reader.fits(folder := subject.toys.folder(name))]
    if not fitting:
        skip("It reads another layout than the toy datasets have. Give a folder that it reads.")
    yield from fitting


def _read(reader: DatasetReader, folder: Path, subject: Subject) -> DatasetContent:
    content = reader.read(folder, subject.registry)
    require(
        isinstance(content, DatasetContent),
        f"read gives a {type(content).__name__}; it must be a DatasetContent.",
    )
    return content


def _dataset(subject: Subject, folder: Path) -> Dataset:
    return open_dataset(str(folder), subject.folder, subject.registry)


def _made(subject: Subject, name: str) -> Path:
    raw = subject.folder / name
    raw.mkdir(exist_ok=True)
    found = subject.build().make(raw, Silence())
    require(isinstance(found, Path) and found.is_dir(), f"make gives {found!r}, no folder.")
    return found
