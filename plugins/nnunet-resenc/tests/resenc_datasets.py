"""Datasets without files, as planners see them; and plans in the words of nnU-Net v2."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.data.dataset import Dataset
from nnunet_core.data.fingerprint import CaseFingerprint, Fingerprint, IntensityStatistics
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration, Plans
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build

_STATISTICS = IntensityStatistics(
    mean=0, sd=1, median=0, minimum=-1, maximum=1, percentile_00_5=-1, percentile_99_5=1
)
_SCHEMES = {
    "CT": "CTNormalization",
    "zscore": "ZScoreNormalization",
    "none": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}


def described(content: Mapping[str, Any]) -> tuple[Dataset, Fingerprint]:
    """Return a dataset and its fingerprint: sizes in voxels, spacings in mm (z, y, x), and the
    share that cropping leaves, of each case; channels; labels as in dataset.json.
    """
    rows = zip(content["sizes"], content["spacings"], content["size_reductions"], strict=True)
    labels = Labels.from_names(content["labels"], content.get("regions_class_order"))
    fingerprint = Fingerprint(
        dataset_digest="x",
        channels=tuple(content["channels"]),
        foreground=labels.foreground,
        cases=tuple(
            CaseFingerprint(name=f"case_{i}", size=size, spacing=spacing, size_reduction=reduction)
            for i, (size, spacing, reduction) in enumerate(rows)
        ),
        intensities=(_STATISTICS,) * len(content["channels"]),
    )
    image_format: Any = None  # nothing is read
    dataset = Dataset(
        folder=Path("Dataset001_Test"),
        name="Dataset001_Test",
        channels=tuple(content["channels"]),
        labels=labels,
        ending=".nii.gz",
        image_format=image_format,
        label_ending=".nii.gz",
        label_format=image_format,
        training=(),
        document={},
    )
    return dataset, fingerprint


def planned(content: Mapping[str, Any], planner: str, **settings: Any) -> Plans:
    """Return the plans of a dataset for the network of the package."""
    registry = Registry.discover()
    chosen = build(registry.resolve("planner", planner).with_settings(settings))
    return chosen.plan(*described(content), build(registry.resolve("network", "resenc_unet")))


def as_v2(plans: Plans) -> dict[str, Any]:
    """Return what `peer_v2_plans.py` returns of v2's plans, but for the number of parameters."""
    found = plans.configurations
    forward = next(iter(found.values())).transpose_forward
    return {
        "transpose_forward": list(forward),
        "configurations": {
            name: _inherited() if name == "3d_cascade_fullres" else _configuration(configuration)
            for name, configuration in found.items()
        },
    }


def _inherited() -> dict[str, Any]:
    return {"previous_stage": "3d_lowres", "inherits_from": "3d_fullres"}


def _configuration(configuration: Configuration) -> dict[str, Any]:
    spec, axes = configuration.network, slice(-configuration.dimensions, None)
    stages = range(len(spec.conv_kernels))
    return {
        "spacing": list(configuration.spacing[axes]),
        "patch_size": list(configuration.patch_size),
        "batch_size": configuration.batch_size,
        "batch_dice": configuration.batch_dice,
        "median_image_size_in_voxels": list(configuration.median_shape[axes]),
        "normalization_schemes": [_SCHEMES[n.scheme] for n in configuration.normalization],
        "use_mask_for_norm": [n.use_mask for n in configuration.normalization],
        "strides": [[1] * spec.dimensions, *map(list, spec.pool_kernels)],
        "kernel_sizes": [list(kernel) for kernel in spec.conv_kernels],
        "features_per_stage": [spec.features(stage) for stage in stages],
        "n_blocks_per_stage": [(1, 3, 4, 6)[min(stage, 3)] for stage in stages],
    }


def differences(mine: Any, theirs: Any, path: str = "") -> list[str]:
    """Return every value that differs; median sizes, which v2 does not round, by more than a half,
    and spacings by more than rounding.
    """
    if isinstance(mine, dict) and isinstance(theirs, dict):
        keys = sorted({*mine, *theirs} - {"parameters"})
        return [d for k in keys for d in differences(mine.get(k), theirs.get(k), f"{path}/{k}")]
    tolerance = {"spacing": 1e-9, "median_image_size_in_voxels": 0.5}.get(path.rpartition("/")[2])
    if tolerance is None or mine is None or theirs is None:
        same = mine == theirs
    else:
        same = np.allclose(mine, theirs, rtol=0, atol=tolerance)
    return [] if same else [f"{path[1:]}: ours {mine}, v2 {theirs}"]
