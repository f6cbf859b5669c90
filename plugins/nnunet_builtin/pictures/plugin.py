"""The plugin `pictures`: draws validation cases when a fold is validated, the worst cases of an
evaluation, and datasets and predictions when it is asked to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnunet_core import Component, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from nnunet_core.data.cases import Case
    from nnunet_core.data.dataset import Dataset
    from nnunet_core.data.images import Image
    from nnunet_core.data.labels import Labels


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands that draw a dataset, and label maps over images."""
    return [
        Component(
            "dataset sheet",
            "nnunet_builtin.pictures.commands:sheet",
            "Draw every training case of a dataset in one picture.",
        ),
        Component(
            "overlay",
            "nnunet_builtin.pictures.commands:overlay",
            "Draw label maps over their images.",
        ),
    ]


@hookimpl
def nnunet_fold_validated(dataset: Dataset, summary: Mapping[str, Any]) -> None:
    """Draw the best, the median and the worst case over their images."""
    from nnunet_builtin.pictures.overlays import draw_overlays

    draw_overlays(dataset, summary)


@hookimpl
def nnunet_cases_shown(cases: Iterable[Case], labels: Labels, path: Path) -> None:
    """Draw the cases of a dataset with their labels, small, to one picture."""
    from nnunet_builtin.pictures.overlays import draw_cases

    draw_cases(cases, labels, path)


@hookimpl
def nnunet_worst_case_found(
    image: Image,
    reference: np.ndarray,
    prediction: np.ndarray,
    labels: Labels,
    values: Sequence[int],
    title: str,
    path: Path,
) -> None:
    """Draw the case with its reference and its prediction, through the label that is worst."""
    from nnunet_builtin.pictures.overlays import draw_compared

    draw_compared(image, reference, prediction, labels, values, title, path)
