"""Predict one prepared case: its probabilities and its label map on the grid of the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_core.contracts.abilities import PredictsLogits, ability
from nnunet_core.contracts.predictor import Predictor, TrainedModel
from nnunet_core.contracts.preprocessor import Preprocessor
from nnunet_core.data.cases import PreparedGeometry
from nnunet_core.data.labels import Labels, label_type
from nnunet_core.errors import NnunetError, PluginError
from nnunet_core.stages.cascade import append_one_hot
from nnunet_core.stages.prepare import on_device


@dataclass(frozen=True)
class CasePredictor:
    """Networks in memory, and the way back to the image; validation and prediction have no other.

    Attributes:
        apply: Images float32 (C, *spatial) -> probabilities float32 (K, *spatial), see
            `contracts.Predictor.load`.
        preprocessor: Takes raw cases to the networks' grid, and probabilities back.
        labels: What the probabilities are of.
        logits: `apply` returns logits; they become probabilities after they were restored.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    preprocessor: Preprocessor
    labels: Labels
    logits: bool = False

    @classmethod
    def open(
        cls,
        model: TrainedModel,
        predictor: Predictor,
        preprocessor: Preprocessor,
    ) -> CasePredictor:
        """Load the networks."""
        able, device = ability(predictor, PredictsLogits), model.runtime.device
        logits = able is not None and able.returns_logits
        return cls(predictor.load(model), on_device(preprocessor, device), model.labels, logits)

    def __call__(
        self, images: np.ndarray, geometry: PreparedGeometry, previous: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict one case.

        Args:
            images: float32 (C, *spatial), prepared.
            geometry: The way back.
            previous: In a cascade, the label map of the stage before on the prepared grid,
                (*spatial).

        Returns:
            Label map uint8 or uint16 (Z, Y, X), probabilities float32 (K, Z, Y, X).

        Raises:
            PluginError: The predictor returned another shape than its contract says.
            NnunetError: Probabilities are not finite: the networks overflow, or are none.
        """
        if previous is not None:
            images = append_one_hot(images, previous, self.labels.foreground)
        found = self.apply(images)
        expected = (self.labels.outputs, *images.shape[1:])
        if found.shape != expected:
            raise PluginError(
                f"The predictor returned probabilities of shape {found.shape} for images of shape "
                f"{images.shape}; it must return {expected}: {self.labels.outputs} classes or "
                "regions on the grid of the images."
            )
        if not np.isfinite([found.min(), found.max()]).all():  # NaN wins in both
            raise NnunetError(
                "The networks return values that are not finite (NaN or infinity), so there is no "
                "prediction. Predict with --precision float32; if that fails too, look for extreme "
                "values in the image, and train the model anew."
            )
        probabilities = self.preprocessor.restore(found, geometry)
        if self.logits:
            to_probabilities(probabilities, self.labels, geometry.crop_box)
        return to_segmentation(probabilities, self.labels), probabilities


def to_probabilities(logits: np.ndarray, labels: Labels, box: Sequence[tuple[int, int]]) -> None:
    """Turn restored logits (K, Z, Y, X) to probabilities in place: softmax of classes, sigmoid of
    regions. Outside the crop box everything is background, with certainty, as in nnU-Net v2.

    Args:
        logits: float32; 0 outside the box.
        labels: What they are of.
        box: ((start, stop), ...) per axis (z, y, x).
    """
    inside = tuple(slice(start, stop) for start, stop in box)
    change = _sigmoid if labels.regions else _softmax
    for values in logits[(slice(None), *inside)].swapaxes(0, 1):  # a slice at a time: little memory
        change(values)
    if not labels.regions:
        outside = np.ones(logits.shape[1:], bool)
        outside[inside] = False
        logits[0, outside] = 1


def _softmax(values: np.ndarray) -> None:
    values -= values.max(axis=0)
    np.exp(values, out=values)
    values /= values.sum(axis=0)


def _sigmoid(values: np.ndarray) -> None:
    values *= 0.5
    np.tanh(values, out=values)  # the sigmoid is half of it and a half; it cannot overflow
    values += 1
    values *= 0.5


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
