"""What transforms training patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from nnunet_core.data.plans import Configuration


class Augmentation(Protocol):
    """Random transforms of training patches, seeded per sample: equal seeds give equal patches in any process.

    Optional: `abilities.Mirrors` (which axes), `abilities.AugmentsTensors` (on the device, in the training process).
    """

    def generator_patch_size(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the size of the patches to cut, voxels: larger than the network's patch so that rotation has no border."""
        ...

    def augment(
        self, batch: dict[str, np.ndarray], configuration: Configuration, seed: int
    ) -> dict[str, np.ndarray]:
        """Return the training batch of the network's patch size.

        `batch` holds `images` float32 (B, C, *generator patch) and `label` integer (B, 1, *generator patch), with -1
        outside the non-zero region; in a cascade also `previous` int16 (B, 1, *generator patch), the label map of the
        previous stage. The result has the same keys, cut to the network's patch; labels are >= 0. `previous` becomes one
        more channel of `images` for each of its foreground classes.
        """
        ...
