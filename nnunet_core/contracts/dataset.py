"""What reads dataset folders, and what makes datasets that are run by their name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nnunet_core.data.dataset import CaseFiles, Dataset, DatasetContent
    from nnunet_core.registry.discovery import Registry
    from nnunet_core.runtime.reporting import Reporter


class DatasetReader(Protocol):
    """Reads one layout of folders. It lists files; voxels are read, and checked, elsewhere.

    Our own readers are asked first, then those of other plugins; exactly one of these may fit a
    folder.

        class Flat:
            looks_for = "images named CASE_image.nii.gz"

            def fits(self, folder):
                return any(folder.glob("*_image.nii.gz"))

            def cases(self, folder, dataset=None):
                found = sorted(folder.glob("*_image.nii.gz"))
                return [CaseFiles(path.name.removesuffix("_image.nii.gz"), (path,)) for path in
                found]

            def read(self, folder, registry):
                training = [replace(c, label=folder / f"{c.name}_mask.nii.gz") for c in
                self.cases(folder)] labels = Labels.from_names({"background": 0, "lesion": 1})
                return DatasetContent(channels=("MRI",), labels=labels, training=tuple(training))

    Attributes:
        looks_for: What a folder has that fits, one line for people.
    """

    looks_for: str

    def fits(self, folder: Path) -> bool:
        """Return whether an existing folder has this layout: a dataset, or images to predict. Fast,
        and never an error.
        """
        ...

    def read(self, folder: Path, registry: Registry) -> DatasetContent:
        """Read a dataset folder that fits; `registry` finds image formats
        (`stages.formats.find_format`).

        Raises:
            DatasetError: The folder breaks its own description, or files of cases are missing; all
                of them are named.
        """
        ...

    def cases(self, folder: Path, dataset: Dataset) -> Sequence[CaseFiles]:
        """List the cases of a folder of images that fits, each with every channel of `dataset`,
        without labels; one that lacks a file has a `problem`, so that the others are predicted.

        Raises:
            DatasetError: There is no case, or none has every channel.
        """
        ...


class DatasetMaker(Protocol):
    """Makes a dataset in the raw folder of the workspace, and says how it is run when the user does
    not say it.

    Attributes:
        variant: Name of the variant that fits it; empty is the default one.
        folds: Folds to train; empty is every fold.
        predict: Folder of the dataset to predict afterwards; empty predicts nothing.
    """

    variant: str
    folds: tuple[str, ...]
    predict: str

    def make(self, raw: Path, report: Reporter) -> Path:
        """Return the folder of the dataset below `raw`, made if it is not there."""
        ...
