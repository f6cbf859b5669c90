"""What transforms training patches: an augmentation, and the steps that it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

    from nnunet_core.data.plans import Configuration


class Augmentation(Protocol):
    """Random transforms of training patches, seeded per sample: equal seeds give equal patches in
    any process.

    Optional: `abilities.Mirrors` (which axes), `abilities.AugmentsTensors` (on the device, in the
    training process).
    """

    def generator_patch_size(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the size of the patches to cut, voxels: larger than the network's patch so that
        rotation has no border.
        """
        ...

    def augment(
        self, batch: dict[str, np.ndarray], configuration: Configuration, seed: int
    ) -> dict[str, np.ndarray]:
        """Return the training batch of the network's patch size.

        `batch` holds `images` float32 (B, C, *generator patch) and `label` integer (B, 1,
        *generator patch), with -1 outside the non-zero region; in a cascade also `previous` int16
        (B, 1, *generator patch), the label map of the previous stage; and where prepared cases have
        further arrays, `arrays` {name: (B, K, *generator patch)} and `like` {name: "image" or
        "label"}. The result has the same keys, cut to the network's patch; labels are >= 0.
        `previous` becomes one more channel of `images` for each of its foreground classes.
        """
        ...


@dataclass(frozen=True)
class Sample:
    """A training patch on its way through the steps. All tensors are on one device, and no step
    changes them in place.

    Attributes:
        images: float32 (C, *patch).
        label: Integer (1, *patch), -1 outside the non-zero region.
        configuration: Of the network.
        previous: Integer (1, *patch), the label map of the previous stage in a cascade.
        arrays: Further arrays of the case, {name: (K, *patch)}. Only spatial steps change them.
        like: How they are moved: {name: `image`, interpolated, or `label`}; 0 comes in from
            outside.
    """

    images: torch.Tensor
    label: torch.Tensor
    configuration: Configuration
    previous: torch.Tensor | None = None
    arrays: Mapping[str, torch.Tensor] = field(default_factory=dict)
    like: Mapping[str, str] = field(default_factory=dict)

    def moved(
        self,
        image: Callable[[torch.Tensor], torch.Tensor],
        label: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> Sample:
        """Return the sample with everything in it moved, as a spatial step does.

        Args:
            image: Moves (K, *old) of numbers to (K, *new).
            label: Moves (K, *old) of label maps; None moves them as images.
        """
        move_label = label or image
        arrays = {}
        for name, array in self.arrays.items():
            move = image if self.like[name] == "image" else move_label
            arrays[name] = move(array)
        return replace(
            self,
            images=image(self.images),
            label=move_label(self.label),
            previous=None if self.previous is None else move_label(self.previous),
            arrays=arrays,
        )


class Step(ABC):
    """One random transform. Subclasses are dataclasses whose fields are their settings (JSON values
    with defaults).

    A gamma for all channels is

        @dataclass(frozen=True)
        class Gamma(Step):
            probability: float = 0.3

            def draw(self, rng, sample):
                return rng.uniform(0.7, 1.5) if rng.random() < self.probability else None

            def apply(self, sample, decision):
                low = sample.images.min()
                return replace(sample, images=(sample.images - low) ** decision + low)
    """

    @abstractmethod
    def draw(self, rng: np.random.Generator, sample: Sample) -> Any:
        """Return what is to happen to the sample, or None for nothing. All randomness of the step
        comes from `rng`.
        """

    @abstractmethod
    def apply(self, sample: Sample, decision: Any) -> Sample:
        """Return a new sample after what `draw` decided; the same for equal samples and
        decisions.
        """

    def input_size(self, size: tuple[int, ...], configuration: Configuration) -> tuple[int, ...]:  # noqa: ARG002
        """Return the patch, in voxels, that the step needs to leave one of `size`; the same, unless
        it crops.
        """
        return size

    def mirrored_axes(self, configuration: Configuration) -> tuple[int, ...]:  # noqa: ARG002
        """Return the axes of the patch that the step mirrors; prediction averages over these."""
        return ()
