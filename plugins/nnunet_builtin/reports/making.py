"""Make a report: find what it is of, gather what it says, draw, write the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

from nnunet_builtin.pages.cases import MOST_VOLUMES, small_enough
from nnunet_builtin.pages.elements import Picture, Volume
from nnunet_builtin.reports.content import ModelContent, RunContent
from nnunet_builtin.reports.dataset_page import dataset_page
from nnunet_builtin.reports.finding import Found, find, run_of
from nnunet_builtin.reports.gathering import gather, models_below
from nnunet_builtin.reports.overlays import (
    contact_sheet,
    drawn_cases,
    stored_pictures,
    worst_first,
)
from nnunet_builtin.reports.run_page import run_page
from nnunet_builtin.reports.sheets import read_sheet
from nnunet_builtin.untrusted.archives import unpacked
from nnunet_core.data.dataset import Dataset
from nnunet_core.errors import NnunetError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.store.workspace import Workspace

FILE = "report.html"


def report_run(folder: Path, dataset: Dataset, workspace: Workspace, report: Reporter) -> Path:
    """Write the page of a run that has just ended; return its file. No case is read.

    Args:
        folder: `results/DATASET/VARIANT`.
        dataset: That it was trained on.
        workspace: With its plans.
        report: Where messages go.

    Raises:
        NnunetError: The page cannot be written.
    """
    making = Making(Registry.discover(), workspace, report)
    return making.run(run_of(folder), folder / FILE, dataset)


@dataclass(frozen=True)
class Making:
    """What a report is made with.

    Attributes:
        registry, workspace, report: Plugins, folders, where messages go.
        workers: Processes that read the cases of a dataset; None at the end of a run, when nothing
            is read.
        pictures: Worst cases of each configuration that are drawn.
    """

    registry: Registry
    workspace: Workspace
    report: Reporter
    workers: Workers | None = None
    pictures: int = 0

    def make(self, reference: str, output: Path | None = None) -> Path:
        """Write the page of what a reference names; return its file.

        Raises:
            UsageError: It names nothing that a report is made of.
            NnunetError: What it names cannot be read, or the page cannot be written.
        """
        found = find(reference, self.workspace, self.registry)
        if found.kind == "dataset":
            return self._dataset(found.folder, output)
        if found.kind == "archive":
            return self._archive(found.folder, output)
        return self.run(found, output or found.folder / FILE)

    def run(self, found: Found, path: Path, dataset: Dataset | None = None) -> Path:
        """Write the page of models; return its file.

        Args:
            found: The models.
            path: HTML file.
            dataset: Of the run that has just ended: its pictures are those that the run drew.
        """
        folder = None if dataset is None else dataset.folder
        content = gather(found, self.workspace, self.registry, folder)
        if dataset is None and any(model.cases for model in content.models):
            dataset = self._opened(content)
            folder = None if dataset is None else dataset.folder
            content = replace(content, data=replace(content.data, folder=folder))
        shown = {model.name: self._worst(model, dataset) for model in content.models}
        pictures = {name: own for name, (own, _) in shown.items()}
        # the worst of each configuration come before the second ones
        ranked = zip_longest(*(volumes for _, volumes in shown.values()))
        volumes = [volume for row in ranked for volume in row if volume is not None]
        page = partial(run_page, content, pictures)
        files.write_text(path, small_enough(page, volumes[:MOST_VOLUMES], self.report))
        return path

    def _worst(
        self, model: ModelContent, dataset: Dataset | None
    ) -> tuple[Sequence[Picture], Sequence[Volume]]:
        """Return the worst cases of a model: drawn now, or as the validation drew them."""
        if not self.pictures or dataset is None:
            return stored_pictures(model), ()
        worst = [case for case in worst_first(model.cases) if case.mean is not None]
        some = worst[: self.pictures]
        return drawn_cases(model.name, some, dataset, self.registry, self.report)

    def _opened(self, content: RunContent) -> Dataset | None:
        """Open the dataset of a run, which may be elsewhere by now."""
        try:
            name = content.models[0].document.dataset
            return open_dataset(self._place(content, name), self.workspace.raw, self.registry)
        except NnunetError as error:
            self.report.warning(f"worst cases are shown as the run drew them: {error}")
            return None

    def _place(self, content: RunContent, name: str) -> str:
        """Return where a dataset is: where its validation found it, else its name."""
        for model in content.models:
            for case in model.cases:
                for folder in case.reference.parents:
                    if folder.name == name and folder.is_dir():
                        return str(folder)
        return name

    def _archive(self, archive: Path, output: Path | None) -> Path:
        """Write the page of an exported model: it is unpacked beside the page, and removed."""
        name = archive.name.partition(".")[0]
        path = output or Path.cwd() / f"{name}_report.html"
        with unpacked(archive, path) as folder:
            found = models_below(folder, archive)
            return self.run(replace(found, title=archive.name), path)

    def _dataset(self, folder: Path, output: Path | None) -> Path:
        preprocessed = self.workspace.preprocessed
        dataset = open_dataset(str(folder), self.workspace.raw, self.registry, preprocessed)
        assert self.workers is not None  # the command has them
        sheet, problems = read_sheet(dataset, preprocessed, self.workers, self.report)
        names = [case.name for case in sheet.cases]
        pictures = contact_sheet(dataset, names, self.registry, self.report) if names else []
        path = output or preprocessed / dataset.name / FILE
        dataset_page(sheet, pictures, problems).write(path)
        return path
