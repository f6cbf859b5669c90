"""Runs inside an environment with nnunetv2 2.8.1: plans the fingerprints of a JSON file, writes
JSON.

Usage: python peer_v2_plans.py FINGERPRINTS.json PLANS.json

The input is {"fingerprints": [{"sizes", "spacings", "size_reductions", "channels", "labels"}],
"planners": {name: [class name, {attribute: value}]}}, the output {name: plans} per fingerprint: of
each configuration what planning decides, and the parameters of its network. What v2 cannot plan is
{"error": "type: message"}.
"""

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = tempfile.TemporaryDirectory()
RAW, PREPROCESSED, RESULTS = (Path(ROOT.name) / name for name in ("raw", "preprocessed", "results"))
os.environ.update(
    nnUNet_raw=str(RAW), nnUNet_preprocessed=str(PREPROCESSED), nnUNet_results=str(RESULTS)
)

with contextlib.redirect_stdout(None):
    import torch
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as planners,
    )
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

NAME = "Dataset001_Test"
KEYS = ("spacing", "patch_size", "batch_size", "batch_dice", "median_image_size_in_voxels")
KEYS += ("normalization_schemes", "use_mask_for_norm", "previous_stage", "inherits_from")
SIZES = ("strides", "kernel_sizes", "features_per_stage", "n_blocks_per_stage")


def write_dataset(fingerprint):
    """Write what v2's planners read: dataset.json, and dataset_fingerprint.json."""
    count = len(fingerprint["sizes"])
    document = {
        "channel_names": {str(i): name for i, name in enumerate(fingerprint["channels"])},
        "labels": fingerprint["labels"],
        "numTraining": count,
        "file_ending": ".nii.gz",
        "dataset": {f"case_{i}": {"images": ["x.nii.gz"], "label": "x"} for i in range(count)},
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    described = {
        "spacings": fingerprint["spacings"],
        "shapes_after_crop": fingerprint["sizes"],
        "median_relative_size_after_cropping": sorted_middle(fingerprint["size_reductions"]),
        "foreground_intensity_properties_per_channel": {},
    }
    (RAW / NAME / "dataset.json").write_text(json.dumps(document))
    (PREPROCESSED / NAME / "dataset_fingerprint.json").write_text(json.dumps(described))


def sorted_middle(values):
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def plan(name, changes, counted):
    """Return what one planner decides, or its error."""
    try:
        planner = getattr(planners, name)(NAME)
        for attribute, value in changes.items():
            setattr(planner, attribute, value)
        plans = planner.plan_experiment()
        inputs = len(planner.dataset_json["channel_names"])
        return {
            "transpose_forward": plans["transpose_forward"],
            "configurations": {
                key: described(configuration, inputs, counted)
                for key, configuration in plans["configurations"].items()
            },
        }
    except Exception as error:  # noqa: BLE001 (an error of v2 is a result)
        return {"error": f"{type(error).__name__}: {error}"}


def described(configuration, inputs, outputs):
    found = {key: configuration[key] for key in KEYS if key in configuration}
    if "architecture" in configuration:
        architecture = configuration["architecture"]
        sizes = architecture["arch_kwargs"]
        network = get_network_from_plans(
            architecture["network_class_name"],
            sizes,
            architecture["_kw_requires_import"],
            inputs,
            outputs,
            allow_init=False,
        )
        found.update({key: sizes[key] for key in SIZES})
        found["parameters"] = sum(p.numel() for p in network.parameters())
    return found


def main():
    content = json.loads(Path(sys.argv[1]).read_text())
    results = []
    for folder in (RAW, PREPROCESSED):
        (folder / NAME).mkdir(parents=True)
    for fingerprint in content["fingerprints"]:
        write_dataset(fingerprint)
        # networks are only counted: without memory and initial values
        with contextlib.redirect_stdout(None), torch.device("meta"):
            results.append(
                {
                    key: plan(name, changes, fingerprint["outputs"])
                    for key, (name, changes) in content["planners"].items()
                }
            )
        for file in (PREPROCESSED / NAME).glob("nnUNet*.json"):
            file.unlink()
    Path(sys.argv[2]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
