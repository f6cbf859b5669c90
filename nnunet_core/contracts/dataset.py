"""What reads dataset folders, what makes datasets that are run by name, and what finds cases in series of files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nnunet_core.data.dataset import CaseFiles, Dataset, DatasetContent
    from nnunet_core.data.images import Geometry, Image
    from nnunet_core.registry.discovery import Registry
    from nnunet_core.runtime.reporting import Reporter


class DatasetReader(Protocol):
    """Reads one layout of folders. It lists files; voxels are read, and checked, elsewhere.

    Our own readers are asked first, then those of other plugins; exactly one of these may fit a folder.

        class Flat:
            looks_for = "images named CASE_image.nii.gz"

            def fits(self, folder):
                return any(folder.glob("*_image.nii.gz"))

            def cases(self, folder, dataset=None):
                found = sorted(folder.glob("*_image.nii.gz"))
                return [CaseFiles(path.name.removesuffix("_image.nii.gz"), (path,)) for path in found]

            def read(self, folder, registry):
                training = [replace(c, label=folder / f"{c.name}_mask.nii.gz") for c in self.cases(folder)]
                labels = Labels.from_names({"background": 0, "lesion": 1})
                return DatasetContent(channels=("MRI",), labels=labels, training=tuple(training))

    Attributes:
        looks_for: What a folder has that fits, one line for people.
    """

    looks_for: str

    def fits(self, folder: Path) -> bool:
        """Return whether an existing folder has this layout: a dataset, or images to predict. Fast, and never an error."""
        ...

    def read(self, folder: Path, registry: Registry) -> DatasetContent:
        """Read a dataset folder that fits; `registry` finds image formats (`store.raw.find_format`).

        Raises:
            DatasetError: The folder breaks its own description, or files of cases are missing; all of them are named.
        """
        ...

    def cases(self, folder: Path, dataset: Dataset) -> Sequence[CaseFiles]:
        """List the cases of a folder of images that fits, each with every channel of `dataset`, without labels.

        Raises:
            DatasetError: There is no case, or channels are missing.
        """
        ...


class DatasetMaker(Protocol):
    """Makes a dataset in the raw folder of the workspace, and says how it is run when the user does not say it.

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


class LabelReader(Protocol):
    """Reads the label file of a case."""

    def read(self, path: Path, geometry: Geometry | None) -> Image:
        """Read a label to integers (1, Z, Y, X); `geometry` is that of the image, None where nobody has read it."""
        ...


@dataclass(frozen=True)
class SeriesLabels:
    """The labels of series.

    Attributes:
        files: {case: label file}.
        values: {label name: value}, with the background.
        reader: Reads the files to these values.
    """

    files: Mapping[str, Path]
    values: Mapping[str, int]
    reader: LabelReader


@runtime_checkable
class SeriesFormat(Protocol):
    """An image format whose images are recognised by their content, not by their names; `dataset convert` asks it."""

    def find_series(self, folder: Path) -> Mapping[str, Path]:
        """Return {name: image} of a folder, sorted; empty when it holds none. Raises DatasetError where it is ambiguous."""
        ...

    def channel_name(self, path: Path) -> str:
        """Return the name of the channel that an image says it is: `CT`, `MRI`, ... Raises ImageError."""
        ...

    def find_labels(
        self, place: Path, images: Mapping[str, Path], values: Mapping[str, int]
    ) -> SeriesLabels | None:
        """Return the labels of images {case: image} in a folder or file; None when they are label files of other formats.

        Args:
            place: Folder of label files, or one of them.
            images: One image per case.
            values: {label name: value} that the user asks for; empty numbers them.

        Raises:
            DatasetError: Labels and images do not belong to each other.
            UsageError: `values` lacks labels.
        """
        ...
