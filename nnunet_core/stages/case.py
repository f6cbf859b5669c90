"""Predict one prepared case: its probabilities and its label map on the grid of the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nnunet_core.contracts.abilities import restores_slabs
from nnunet_core.contracts.predictor import Predictor, Slabs, TrainedModel
from nnunet_core.contracts.preprocessor import Preprocessor
from nnunet_core.data.cases import PreparedGeometry
from nnunet_core.data.labels import Labels, label_type
from nnunet_core.errors import ImageError, NnunetError, PluginError
from nnunet_core.runtime.memory import GB, available
from nnunet_core.stages.cascade import append_one_hot
from nnunet_core.stages.prepare import on_device

_SMALL = 1 << 28
#: Is given the first slice and the probabilities float32 (K, slices, Y, X) of each part of a case.
Keep = Callable[[int, np.ndarray], object]


@dataclass(frozen=True)
class CasePredictor:
    """Networks in memory, and the way back to the image; validation and prediction have no other.

    Attributes:
        apply: Images float32 (C, *spatial) -> values (K, *spatial), see `contracts.Predictor.load`.
        preprocessor: Takes raw cases to the networks' grid, and probabilities back.
        labels: What the probabilities are of.
    """

    apply: Callable[[np.ndarray], np.ndarray | Slabs]
    preprocessor: Preprocessor
    labels: Labels

    @classmethod
    def open(
        cls,
        model: TrainedModel,
        predictor: Predictor,
        preprocessor: Preprocessor,
    ) -> CasePredictor:
        """Load the networks."""
        device = model.runtime.device
        return cls(predictor.load(model), on_device(preprocessor, device), model.labels)

    def __call__(
        self, images: np.ndarray, geometry: PreparedGeometry, previous: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict one case; return its label map, see `segment`, and the probabilities float32 (K,
        Z, Y, X), which are whole in memory.
        """
        probabilities = np.zeros((self.labels.outputs, *geometry.original.shape), np.float32)

        def keep(start: int, slab: np.ndarray) -> None:
            probabilities[:, start : start + slab.shape[1]] = slab

        return self.segment(images, geometry, previous, keep), probabilities

    def segment(
        self,
        images: np.ndarray,
        geometry: PreparedGeometry,
        previous: np.ndarray | None = None,
        keep: Keep | None = None,
    ) -> np.ndarray:
        """Predict one case, part by part as its predictor and its preprocessor are able to.

        Args:
            images: float32 (C, *spatial), prepared.
            geometry: The way back.
            previous: In a cascade, the label map of the stage before on the prepared grid,
                (*spatial).
            keep: What becomes of the probabilities: it is called with each part along axis Z, in
                any order. Without it only voxels on the boundaries of labels are interpolated.

        Returns:
            Label map uint8 or uint16 (Z, Y, X).

        Raises:
            PluginError: The predictor returned another shape than its contract says.
            NnunetError: Values are not finite: the networks overflow, or are none.
        """
        if previous is not None:
            images = append_one_hot(images, previous, self.labels.foreground)
        slabs = _checked(self.apply(images), (self.labels.outputs, *images.shape[1:]))
        able = restores_slabs(self.preprocessor)
        if able is not None and keep is None:
            return able.restore_labels(slabs, geometry, self.labels)
        parts: Iterable[tuple[int, np.ndarray]]
        if able is not None:
            parts = able.restore_slabs(slabs, geometry)
        else:
            _check_whole(slabs, geometry, self.preprocessor)
            found = slabs.whole()
            parts = [(0, self.preprocessor.restore(found, geometry))]
        segmentation = np.zeros(
            geometry.original.shape, label_type(max(self.labels.foreground, default=0))
        )
        for start, values in parts:
            probabilities = _last_step(slabs, start, values, geometry, self.labels)
            # of logits, the largest one is the largest probability
            decisive = probabilities if self.labels.regions else values
            place = slice(start, start + values.shape[1])
            segmentation[place] = to_segmentation(decisive, self.labels)
            if keep is not None:
                keep(start, probabilities)
        return segmentation


def _check_whole(slabs: Slabs, geometry: PreparedGeometry, preprocessor: Preprocessor) -> None:
    """Raise ImageError where a preprocessor restores whole arrays that would fill the memory."""
    voxels = math.prod(geometry.prepared_shape) + math.prod(geometry.original.shape)
    needed = 4 * slabs.shape[0] * voxels
    if needed > _SMALL and needed > available():
        raise ImageError(
            f"The preprocessor {type(preprocessor).__name__} restores whole arrays: of "
            f"{slabs.shape[0]} classes on {' x '.join(map(str, geometry.original.shape))} voxels "
            f"that takes {needed / GB:.0f} GB, {available() / GB:.1f} GB of memory are free. Use a "
            "machine with more memory, or give it 'restore_labels' and 'restore_slabs' "
            "(nnunet_core.contracts.abilities.RestoresSlabs)."
        )


def _checked(found: np.ndarray | Slabs, expected: tuple[int, ...]) -> Slabs:
    """Return what a predictor returned as slabs whose values are checked as they are read."""
    slabs = found if isinstance(found, Slabs) else Slabs(found.shape, [found])
    if tuple(slabs.shape) != expected:
        raise PluginError(
            f"The predictor returned probabilities of shape {tuple(slabs.shape)} for images of "
            f"shape {expected[1:]}; it must return {expected}: {expected[0]} classes or regions on "
            "the grid of the images."
        )
    return replace(slabs, parts=_checked_parts(slabs))


def _checked_parts(slabs: Slabs) -> Iterator[np.ndarray]:
    slices = 0
    for part in slabs:
        slices += part.shape[1]
        if (part.shape[0], *part.shape[2:]) != (slabs.shape[0], *slabs.shape[2:]):
            raise PluginError(
                f"The predictor returned a slab of shape {part.shape}; slabs that are "
                f"{slabs.shape} together follow each other along the first spatial axis."
            )
        if slices > slabs.shape[1]:
            break
        if not np.isfinite([part.min(), part.max()]).all():  # NaN wins in both
            raise NnunetError(
                "The networks return values that are not finite (NaN or infinity), so there is no "
                "prediction. Predict with --precision float32; if that fails too, look for extreme "
                "values in the image, and train the model anew."
            )
        yield np.asarray(part, np.float32)
    if slices != slabs.shape[1]:
        raise PluginError(
            f"The predictor returned slabs of {slices} slices; the case has {slabs.shape[1]}."
        )


def _last_step(
    slabs: Slabs, start: int, values: np.ndarray, geometry: PreparedGeometry, labels: Labels
) -> np.ndarray:
    """Return the probabilities of restored values (K, slices, Y, X) from slice `start` on.

    Of logits, everything outside the crop box is background with certainty, as in nnU-Net v2.
    """
    if slabs.values == "probabilities":
        return values
    probabilities, regions = np.zeros_like(values), bool(labels.regions)
    (first, last), *others = geometry.crop_box
    rows = slice(max(first - start, 0), max(last - start, 0))
    inside = (rows, *(slice(*sides) for sides in others))
    if not regions:
        probabilities[0] = 1
    probabilities[(slice(None), *inside)] = slabs.probabilities(
        values[(slice(None), *inside)], regions
    )
    return probabilities


def to_segmentation(probabilities: np.ndarray, labels: Labels) -> np.ndarray:
    """Turn probabilities (K, Z, Y, X) to a label map (Z, Y, X) of type uint8 (uint16 above 255).

    Classes: the first maximum wins. Regions: values above 0.5, later regions over earlier ones
    (spec: inference, section 2, step 6).
    """
    dtype = label_type(max(labels.foreground, default=0))
    if not labels.regions:
        return probabilities.argmax(axis=0).astype(dtype)
    segmentation = np.zeros(probabilities.shape[1:], dtype)
    for channel, value in zip(probabilities, labels.region_order, strict=True):
        segmentation[channel > 0.5] = value
    return segmentation
