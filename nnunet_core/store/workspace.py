"""Where raw datasets, prepared cases and results lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "NNUNET_WORKSPACE"


@dataclass(frozen=True)
class Workspace:
    """The three folders of a workspace; they are created on first writing.

    Attributes:
        raw: Datasets that can be named by id or name.
        preprocessed: Fingerprints, plans and prepared cases.
        results: `<dataset>/<variant>/<configuration>/fold_<k>`.
    """

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def find(
        cls, folder: Path | None = None, environment: Mapping[str, str] = os.environ
    ) -> Workspace:
        """Return the workspace.

        It is `folder`, else NNUNET_WORKSPACE, else what the variables of nnU-Net v2 and v1 name,
        else `./nnunet_workspace`.
        """
        root = folder or (Path(environment[VARIABLE]) if environment.get(VARIABLE) else None)
        if root is not None:
            return cls._under(root)
        default = cls._under(Path("nnunet_workspace"))
        base = environment.get("nnUNet_raw_data_base")
        raw = environment.get("nnUNet_raw") or (
            str(Path(base) / "nnUNet_raw_data") if base else None
        )
        results = environment.get("nnUNet_results") or environment.get("RESULTS_FOLDER")
        preprocessed = environment.get("nnUNet_preprocessed")
        return cls(
            raw=_absolute(raw) if raw else default.raw,
            preprocessed=_absolute(preprocessed) if preprocessed else default.preprocessed,
            results=_absolute(results) if results else default.results,
        )

    def splits(self, dataset: str) -> Path:
        """Return the file with the folds of a dataset."""
        return self.preprocessed / dataset / "splits.json"

    @classmethod
    def _under(cls, root: Path) -> Workspace:
        root = _absolute(root)
        return cls(root / "raw", root / "preprocessed", root / "results")


def _absolute(path: Path | str) -> Path:
    return Path(path).expanduser().absolute()
