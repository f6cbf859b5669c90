"""Pictures of the best, the median and the worst validation case of a fold, and of any compared
case.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_builtin.pictures.drawing import contact_sheet, overlay_picture
from nnunet_core.data.cases import Case
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import Image
from nnunet_core.data.labels import Labels
from nnunet_core.stages.evaluate import mean_foreground_dice


def draw_overlays(dataset: Dataset, summary: Mapping[str, Any]) -> None:
    """Draw three validation cases of a fold beside their predictions: `overlay_best.png` and so on.

    Args:
        dataset: That was trained on.
        summary: Of the validation, see summary.json.
    """
    scored = [
        (mean_foreground_dice({"results": {"mean": case}}), case["test"])
        for case in summary["results"]["all"]
    ]
    ranked = [Path(path) for _, path in sorted(pair for pair in scored if not math.isnan(pair[0]))]
    if not ranked:
        return
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
    for title, path in chosen.items():
        name = path.name.removesuffix(dataset.label_ending)
        case = dataset.load(dataset.case(name))
        prediction = dataset.label_format.read(path).array[0]
        overlay_picture(
            case.images[0],
            case.label,
            prediction,
            path=path.parent / f"overlay_{title}.png",
            title=f"{title} validation case: {name}",
            spacing=case.geometry.spacing,
            labels=dataset.labels,
            direction=case.geometry.direction,
        )


def draw_cases(cases: Iterable[Case], labels: Labels, path: Path) -> None:
    """Draw cases with their labels, small, to one PNG."""
    contact_sheet(cases, path, labels)


def draw_compared(
    image: Image,
    reference: np.ndarray,
    prediction: np.ndarray,
    labels: Labels,
    values: Sequence[int],
    title: str,
    path: Path,
) -> None:
    """Draw the first channel of an image beside its label maps, integers (Z, Y, X), to a PNG,
    through the slices that show most of some values.
    """
    overlay_picture(
        image.array[0],
        reference,
        prediction,
        title=title,
        path=path,
        spacing=image.geometry.spacing,
        labels=labels,
        direction=image.geometry.direction,
        focus=values,
    )
