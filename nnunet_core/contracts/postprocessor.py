"""What cleans label maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from nnunet_core.data.images import Geometry
    from nnunet_core.data.labels import Labels


class Postprocessor(Protocol):
    """Cleans label maps in a way that was found useful on the validation cases. Never invents
    labels.

        class WithoutSpecks:
            def fit(self, pairs, labels):
                return {"voxels": 10}

            def apply(self, segmentation, geometry, state):
                parts, _ = ndimage.label(segmentation > 0)
                small = np.bincount(parts.ravel()) < state["voxels"]
                return np.where(small[parts], 0, segmentation)
    """

    def fit(
        self, pairs: Callable[[], Iterator[tuple[np.ndarray, np.ndarray, Geometry]]], labels: Labels
    ) -> dict[str, Any]:
        """Decide from (prediction, reference, geometry) of every validation case; return a JSON
        state.

        `pairs` may be called more than once; arrays are integer (Z, Y, X). A postprocessor whose
        settings decide calls it never: `nnunet postprocess` applies it without references.
        """
        ...

    def apply(
        self, segmentation: np.ndarray, geometry: Geometry, state: Mapping[str, Any]
    ) -> np.ndarray:
        """Return the cleaned copy of an integer (Z, Y, X) label map."""
        ...
