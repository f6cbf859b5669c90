"""A case with what was predicted of it: a picture that plugins draw, a volume to look through."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from nnunet_builtin.pages.elements import Volume
from nnunet_builtin.pages.writing import Page
from nnunet_core.data.cases import Case
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import Image
from nnunet_core.data.labels import Labels
from nnunet_core.data.orientation import turned_like
from nnunet_core.errors import counted
from nnunet_core.registry.hooks import Hooks
from nnunet_core.runtime.reporting import Reporter

_Shown = TypeVar("_Shown")

#: What a page with cases may have: mail servers and browsers take it.
MOST_BYTES = 15_000_000
#: Cases that a page has a volume of; more would make it too large to be sent.
MOST_VOLUMES = 8


def small_enough(
    make: Callable[[Sequence[_Shown]], Page], shown: Sequence[_Shown], report: Reporter
) -> str:
    """Return a page as text, with fewer cases where all of them would make it too large.

    Args:
        make: Makes the page of these cases.
        shown: The most important first.
        report: Hears how many are left.
    """
    while True:
        html = make(shown).html()
        size = len(html.encode())
        if size <= MOST_BYTES:
            return html
        large = f"the report has {size / 1e6:.0f} MB, more than {MOST_BYTES / 1e6:.0f}"
        if not shown:
            report.warning(f"{large}: it may be too large to be sent")
            return html
        shown = shown[: len(shown) // 2]
        report.warning(f"{large}: it shows {counted(len(shown), 'case')} only")


def read_prediction(path: Path, case: Case, dataset: Dataset) -> np.ndarray | None:
    """Return a predicted label map, integer (Z, Y, X), turned like its case; None where it is of
    another grid.

    Raises:
        NnunetError: It cannot be read.
    """
    image = turned_like(dataset.label_format.read(path), case.geometry)
    if case.geometry.contrast(image.geometry, "case", "prediction"):
        return None
    return np.asarray(image.array[0])


@dataclass(frozen=True, eq=False)
class ShownCase:
    """What there is to show of a case.

    Attributes:
        case: As it was read.
        predictions: {what it is called: integer (Z, Y, X)}, on the grid of the case; the worst
            first, which is the one that is drawn.
        labels: Of the dataset.
        caption: For people.
    """

    case: Case
    predictions: Mapping[str, np.ndarray]
    labels: Labels
    caption: str

    def picture(
        self, title: str, values: Sequence[int], hooks: Hooks, report: Reporter
    ) -> bytes | None:
        """Return the PNG that plugins draw of the first prediction, through where these labels are;
        None where none of them draws, or there is no reference.
        """
        if self.case.label is None or not self.predictions:
            return None
        image = Image(self.case.images[:1], self.case.geometry)
        prediction = next(iter(self.predictions.values()))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "overlay.png"
            for warning in hooks.worst_case_found(
                image, self.case.label, prediction, self.labels, tuple(values), title, path
            ):
                report.warning(warning)
            return path.read_bytes() if path.is_file() else None

    def volume(self, name: str) -> Volume:
        """Return the first channel with the reference and all predictions."""
        reference = {} if self.case.label is None else {"reference": self.case.label}
        return Volume(
            name=name,
            image=self.case.images[0],
            maps={**reference, **self.predictions},
            labels={v: self.labels.names.get(v, str(v)) for v in self.labels.foreground},
            spacing=self.case.geometry.spacing,
            direction=self.case.geometry.direction,
            caption=self.caption,
        )
