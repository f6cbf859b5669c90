"""What makes or fetches a dataset that is run by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.runtime.reporting import Reporter


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
