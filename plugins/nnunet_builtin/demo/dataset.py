"""`nnunet run demo`: a small phantom dataset and a training that is over in minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_builtin.demo.phantom import make_phantom
from nnunet_core.runtime.reporting import Reporter

FOLDER = "Dataset999_Phantom"


@dataclass
class Demo:
    """Makes the phantom dataset (contracts.DatasetMaker)."""

    variant: str = "demo"
    folds: tuple[str, ...] = ("0",)
    predict: str = "imagesTs"

    def make(self, raw: Path, report: Reporter) -> Path:
        """Return the folder of the phantom dataset, made if it is missing."""
        folder = raw / FOLDER
        if not (folder / "dataset.json").is_file():
            report.message(f"making a phantom dataset: {folder}")
            make_phantom(folder)
        return folder
