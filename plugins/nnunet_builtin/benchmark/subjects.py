"""The datasets of a benchmark, opened and checked before any job starts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_builtin.benchmark.matrix import Bench, TestSet
from nnunet_builtin.judging.rows import TEST
from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.dataset import DatasetMaker
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.folders import list_files
from nnunet_core.data.splits import ALL, Split, Splits, five_folds, random_split
from nnunet_core.errors import (
    DatasetError,
    MissingFolderError,
    NnunetError,
    UsageError,
    counted,
    listed,
)
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.dataset import find_cases, open_dataset
from nnunet_core.store.workspace import Workspace

#: Cases whose headers tell whether a dataset is of slices or of volumes.
_LOOKED_AT = 25


@dataclass(frozen=True)
class Subject:
    """A dataset of a benchmark.

    Attributes:
        dataset: Opened; every training case has a label.
        configurations: Names of what is trained on it.
        folds: Its stored folds, or the five that will be stored.
        test: Folders of images and of references to predict and to evaluate, or None.
        test_digests: Of the content of these.
    """

    dataset: Dataset
    configurations: tuple[str, ...]
    folds: tuple[Split, ...]
    test: tuple[Path, Path | None] | None = None
    test_digests: tuple[str, ...] = ()

    def scored_cases(self) -> set[str]:
        """Return the names of all cases that scores may be of: of trainings and of the test set."""
        return {*self.dataset.names, *self.tested_cases()}

    def tested_cases(self) -> set[str]:
        """Return the names of the cases of the test set that have a reference."""
        if self.test is None or self.test[1] is None:
            return set()
        return set(list_files(self.test[1], self.dataset.label_ending))

    def scored_configurations(self) -> tuple[str, ...]:
        """Return the configurations that scores may be of, and what stands for a test set's."""
        tested = self.test is not None and self.test[1] is not None
        return (*self.configurations, *((TEST,) if tested else ()))

    @property
    def references(self) -> Path:
        """Return the folder of the label files.

        Raises:
            UsageError: They lie in several.
        """
        folders = {case.label.parent for case in self.dataset.training if case.label is not None}
        if len(folders) != 1:
            raise UsageError(
                f"The labels of {self.dataset.folder} lie in {counted(len(folders), 'folder')}; "
                'surfaces are measured of one. Leave out all metrics but "Dice", or convert it: '
                "nnunet dataset convert"
            )
        return next(iter(folders))

    def split(self, fold: str) -> Split:
        """Return the cases of a fold; of one beyond the stored, as the training draws them."""
        if fold == ALL:
            return Split(train=self.dataset.names, val=self.dataset.names)
        number = int(fold)
        if number < len(self.folds):
            return self.folds[number]
        return random_split(self.dataset.names, number)


def subjects(
    bench: Bench, base: Path, registry: Registry, space: Workspace, report: Reporter
) -> dict[str, Subject]:
    """Open the datasets of a benchmark; return {as written: subject}.

    Args:
        bench: What is asked for.
        base: Folder of bench.toml, which paths in it start from.
        registry: Readers and makers of datasets.
        space: Where names and ids are looked up, and digests and folds are kept.
        report: Hears of a dataset that is made.

    Raises:
        UsageError: There is no such dataset, or several of one name.
        NnunetError: One of them cannot be trained; the message names all that cannot.
    """
    found: dict[str, Subject] = {}
    problems: list[NnunetError] = []
    for name in bench.datasets:
        try:
            found[name] = _subject(bench, name, base, registry, space, report)
        except NnunetError as error:
            problems.append(error)
    if problems:
        kind = UsageError if any(p.exit_code == UsageError.exit_code for p in problems) else None
        raise (kind or DatasetError)("\n".join(map(str, problems))) from problems[0]
    names = [each.dataset.name for each in found.values()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"Two datasets of the benchmark are named {listed(twice)}; results could not be told "
            "apart. Leave one out, or rename its folder."
        )
    return found


def _subject(
    bench: Bench, name: str, base: Path, registry: Registry, space: Workspace, report: Reporter
) -> Subject:
    reference = str(base / name) if (base / name).is_dir() else name
    if name in {resolved.name for resolved in registry.components("dataset")}:
        maker: DatasetMaker = built(registry.resolve("dataset", name))
        reference = str(maker.make(space.raw, report))
    dataset = open_dataset(reference, space.raw, registry, space.preprocessed)
    if unlabelled := [case.name for case in dataset.training if case.label is None]:
        raise DatasetError(
            f"{dataset.folder} has {counted(len(unlabelled), 'training case')} without a label: "
            f"{listed(unlabelled)}. Add the labels, or take the cases out."
        )
    for each in (dataset.name, *dataset.names):
        below(space.preprocessed, each)  # jobs would refuse it
    folds = _folds(dataset, space.splits(dataset.name))
    configurations = tuple(bench.configurations) or (_usual(dataset),)
    test = bench.test.get(name)
    if test is None:
        return Subject(dataset, configurations, folds)
    folders = _test_folders(test, dataset, base, registry)
    there = [folder for folder in folders if folder is not None]
    return Subject(dataset, configurations, folds, folders, tuple(dataset.digests.of(there)))


def _folds(dataset: Dataset, path: Path) -> tuple[Split, ...]:
    if not path.is_file():
        try:
            return five_folds(dataset.names)
        except UsageError as error:
            raise UsageError(
                f"{dataset.folder}: {error} In a benchmark, store folds of your own: nnunet splits"
            ) from error
    stored = Splits.read(path)
    stored.check(dataset.names, path)
    return stored.folds


def _usual(dataset: Dataset) -> str:
    """Return what `nnunet run` trains by default, as far as the headers of some cases tell."""
    step = max(1, len(dataset.training) // _LOOKED_AT)
    some = dataset.training[::step]
    depths = [min(dataset.image_format.header(case.images[0]).shape) for case in some]
    return "2d" if statistics.median(depths) == 1 else "3d_fullres"


def _test_folders(
    test: TestSet, dataset: Dataset, base: Path, registry: Registry
) -> tuple[Path, Path | None]:
    """Return the folders of a test set, after a look whether its cases can be predicted."""
    images = _folder(test.images, dataset, base)
    cases = find_cases(images, dataset, registry)
    broken = [case.problem for case in cases if case.problem]
    if broken:
        raise DatasetError(f"The test images {images} are incomplete: {' '.join(broken)}")
    if test.labels is None:
        return images, None
    labels = _folder(test.labels, dataset, base)
    ending = dataset.label_ending
    missing = [case.name for case in cases if not (labels / f"{case.name}{ending}").is_file()]
    if missing:
        raise DatasetError(
            f"The test labels {labels} lack {listed(missing)} (files CASE{ending}). Add them, or "
            "leave out 'labels' to predict only."
        )
    return images, labels


def _folder(name: str, dataset: Dataset, base: Path) -> Path:
    candidates = [dataset.folder / name, base / name]
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        if file := next((path for path in candidates if path.exists()), None):
            raise UsageError(f"{file} is no folder. Name a folder of images, or of labels.")
        raise MissingFolderError(base / name, f"{dataset.folder / name} does not exist, either.")
    return found.absolute()


def split_digest(splits: Sequence[Split]) -> str:
    """Identify folds."""
    return files.digest([[split.train, split.val] for split in splits])
