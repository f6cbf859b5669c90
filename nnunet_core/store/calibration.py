"""The temperature of a model's probabilities: `calibration.json` in the model folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from nnunet_core.errors import UsageError
from nnunet_core.runtime import files
from nnunet_core.store.models import Model

FILE = "calibration.json"


class CalibrationRecord(files.Document):
    """A temperature that was fitted on the cross-validation.

    Attributes:
        temperature: What logarithms of probabilities are divided by: above 1 the model was too
            sure.
        error_before, error_after: Expected calibration error: the mean difference between how sure
            the model is and how often it is right, over 15 bins.
        loss_before, loss_after: Mean negative logarithm of the probability of the true label.
        cases, voxels: How many were compared.
        weights: {fold: digest of its weights}.
    """

    temperature: Annotated[float, Field(gt=0)]
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float
    cases: int
    voxels: int
    weights: dict[str, str]


def stored_temperature(model: Model, weights: Mapping[str, str]) -> float:
    """Return the temperature of a model.

    Args:
        model: Whose.
        weights: Of the folds that predict, see `models.weights_digests`.

    Raises:
        UsageError: None was fitted, or one of the folds has been trained anew since.
    """
    path = model.folder / FILE
    again = f"Run: nnunet models calibrate {model.folder}"
    if not path.is_file():
        raise UsageError(f"No temperature was fitted for {model.folder}. {again}")
    record = CalibrationRecord.read(path)
    if not weights.items() <= record.weights.items():
        raise UsageError(f"The temperature of {model.folder} is of other folds. {again}")
    return record.temperature


def tempered(probabilities: np.ndarray, temperature: float, regions: bool) -> np.ndarray:
    """Return probabilities (K, ...) whose logarithms are divided by a temperature.

    Classes add up to 1 again, regions are taken one by one; the most probable class stays the most
    probable one, and voxels where every class is 0 stay as they are.
    """
    values = probabilities.astype(np.float32, copy=False) ** np.float32(1 / temperature)
    if regions:
        total = values + (1 - probabilities.astype(np.float32)) ** np.float32(1 / temperature)
    else:
        total = values.sum(axis=0, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)
