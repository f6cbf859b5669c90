"""Predicts one drawn case with this package; prints seconds and memory as JSON.

Usage: python own_prediction.py SIZES, with the JSON of `stage_prediction.Sizes` and
    classes: Outputs of the network, background included.
    device: `cpu` or `cuda`.
    prepare: Whether to begin with preprocessing, or with images on the network's grid.
    until: Time at which it ends, see `timed_parts.Parts`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from drawn_cases import configuration_of, labels_of
from safetensors.torch import save_file
from timed_parts import Parts

from nnunet_builtin.inference.sliding_window import SlidingWindow
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.cases import Case, PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.data.plans import Configuration
from nnunet_core.stages.case import to_segmentation
from nnunet_core.store.models import WEIGHTS

Prepared = tuple[np.ndarray, PreparedGeometry]


def model_of(folder: Path, configuration: Configuration, device: str) -> TrainedModel:
    """Return a model of random weights in nnunetv2's layout of the network."""
    network = PlainUNet(layout="v2")
    save_file(network.build(configuration.network).state_dict(), folder / WEIGHTS)
    labels = labels_of(configuration.network.output_channels)
    runtime = Runtime(device, threads=int(os.environ.get("OMP_NUM_THREADS", "0")))
    return TrainedModel((folder,), configuration, labels, network, runtime, (0, 1, 2))


def prepared(parts: Parts, sizes: dict[str, Any], configuration: Configuration) -> Prepared:
    """Return images (1, *spatial) on the network's grid, and the way back."""
    random = np.random.default_rng(0)
    original = Geometry(tuple(sizes["shape"]), tuple(sizes["spacing"]))
    if not sizes["prepare"]:
        shape = tuple(sizes["prepared_shape"])
        whole = tuple((0, size) for size in original.shape)
        geometry = PreparedGeometry(original, whole, (0, 1, 2), shape, configuration.spacing)
        return random.standard_normal((1, *shape), dtype=np.float32), geometry
    voxels = random.standard_normal((1, *original.shape), dtype=np.float32)
    preprocessor = DefaultPreprocessor().on(sizes["device"])
    with parts.part("preprocess"):
        found = preprocessor.prepare(Case("drawn", voxels, None, original), configuration)
    parts.result["shape"] = found.geometry.prepared_shape
    return found.images, found.geometry


def main() -> None:
    sizes = json.loads(sys.argv[1])
    device = sizes["device"]
    parts = Parts(device, sizes["until"])
    network = (sizes["patch"], 1, sizes["classes"], sizes["poolings"], sizes["base_features"])
    configuration = configuration_of(*network)
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(Path(folder), configuration, device)
        predict = SlidingWindow().load(model)
    images, geometry = prepared(parts, sizes, configuration)
    first = tuple(slice(0, size) for size in sizes["patch"])
    predict(images[(slice(None), *first)]).whole()  # cuDNN tries its algorithms
    parts.reset_peak()
    with parts.part("network"):
        probabilities = predict(images).whole()
    with parts.part("export"):
        restored = DefaultPreprocessor().on(device).restore(probabilities, geometry)
        del probabilities
        to_segmentation(restored, model.labels)
    parts.leave()


if __name__ == "__main__":
    main()
