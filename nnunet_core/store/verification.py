"""verification.json: what `nnunet dataset verify` found in a dataset."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from nnunet_core.runtime.files import Document

FILE = "verification.json"


class CaseFacts(BaseModel):
    """What one case is like.

    Attributes:
        name: Case name.
        shape: Voxels (z, y, x).
        spacing: mm (z, y, x).
        orientation: Letters such as `LPS`.
        minimum: Smallest intensity per channel.
        mean: Mean intensity per channel.
        maximum: Largest intensity per channel.
        voxels: {label value: number of voxels}, values that occur; empty for test cases.
        content: Digest of shape and intensities.
        notes: What is doubtful about the headers of its files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    minimum: tuple[float, ...]
    mean: tuple[float, ...]
    maximum: tuple[float, ...]
    voxels: dict[int, int]
    content: str
    notes: tuple[str, ...] = ()


class Verification(Document):
    """The result of a check.

    Attributes:
        dataset: Folder name.
        dataset_digest: Content digest of what was checked; empty where it was not asked for.
        errors: What has to be corrected before training.
        warnings: What should be looked at.
        cases: Training cases that could be read.
        test_cases: Cases of imagesTs that could be read.
    """

    dataset: str
    dataset_digest: str = ""
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    cases: tuple[CaseFacts, ...]
    test_cases: tuple[CaseFacts, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the dataset can be trained on."""
        return not self.errors

    @property
    def voxels(self) -> dict[int, int]:
        """{label value: number of voxels} over all training cases, sorted by value."""
        total: collections.Counter[int] = collections.Counter()
        for case in self.cases:
            total.update(case.voxels)
        return dict(sorted(total.items()))

    @property
    def shape_range(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Smallest and largest size per axis (z, y, x), voxels."""
        return _range([case.shape for case in self.cases])

    @property
    def spacing_range(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Smallest and largest spacing per axis (z, y, x), mm."""
        return _range([case.spacing for case in self.cases])

    @property
    def intensity_range(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Smallest and largest intensity per channel."""
        return _range([values for case in self.cases for values in (case.minimum, case.maximum)])


def _range(rows: Iterable[Sequence[float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    table = list(zip(*rows, strict=True))
    return tuple(min(column) for column in table), tuple(max(column) for column in table)
