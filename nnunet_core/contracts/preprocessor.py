"""What takes a case to a network's grid, and probabilities back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from nnunet_core.data.cases import Case, PreparedCase, PreparedGeometry
    from nnunet_core.data.plans import Configuration


class Preprocessor(Protocol):
    """Takes a raw case to a network's grid and intensities, and probabilities back.

    Optional: `abilities.ComputesOnDevice`, `abilities.RestoresSlabs`, and for cascades
    `abilities.PreparesLabels`.
    """

    def prepare(
        self, case: Case, configuration: Configuration, foreground: Sequence[int] = ()
    ) -> PreparedCase:
        """Crop, permute, resample, normalise one case; locate `foreground` values when it has a
        label.

        `case.metadata` is what the dataset says of the case, `case.labels` what the values of its
        label mean: classes, regions, the ignore label. The result may have `arrays` for a loss and
        `extra` values for a trainer (docs: how-to/extra-data).

        Raises:
            ImageError: The image has no non-zero voxel.
        """
        ...

    def restore(self, probabilities: np.ndarray, geometry: PreparedGeometry) -> np.ndarray:
        """Resample (K, *prepared_shape) probabilities to float32 (K, Z, Y, X) on the original grid.

        Of a predictor of logits it gets logits, which become probabilities afterwards. Voxels
        outside the crop box are 0 in every channel, which means background. `geometry.metadata` is
        what `prepare` put there, or the metadata of the case.
        """
        ...
