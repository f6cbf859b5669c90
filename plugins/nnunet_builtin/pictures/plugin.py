"""The plugin `pictures`: draws validation cases when a fold is validated, and datasets when it is
asked to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnunet_core import Component, hookimpl

if TYPE_CHECKING:
    from nnunet_core.data.dataset import Dataset


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the command that draws a dataset."""
    return [
        Component(
            "dataset sheet",
            "nnunet_builtin.pictures.commands:sheet",
            "Draw every training case of a dataset in one picture.",
        )
    ]


@hookimpl
def nnunet_fold_validated(dataset: Dataset, summary: Mapping[str, Any]) -> None:
    """Draw the best, the median and the worst case over their images."""
    from nnunet_builtin.pictures.overlays import draw_overlays

    draw_overlays(dataset, summary)
