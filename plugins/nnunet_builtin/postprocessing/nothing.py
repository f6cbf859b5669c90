"""No postprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_builtin.postprocessing.scoring import Pairs
from nnunet_core.data.images import Geometry

if TYPE_CHECKING:
    from nnunet_core.data.labels import Labels


class NoPostprocessing:
    """Leaves predictions as they are."""

    def fit(self, pairs: Pairs, labels: Labels) -> dict[str, Any]:  # noqa: ARG002
        """Return a state that cleans nothing; no case is read."""
        return {"for_which_classes": []}

    def apply(
        self,
        segmentation: np.ndarray,
        geometry: Geometry,  # noqa: ARG002
        state: Mapping[str, Any],  # noqa: ARG002
    ) -> np.ndarray:
        """Return a copy of the (Z, Y, X) label map."""
        return segmentation.copy()
