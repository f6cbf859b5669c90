"""Runs inside an environment with nnunetv2: predicts one drawn case; prints seconds and memory.

Usage: python peer_prediction.py SIZES, as own_prediction.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from timed_parts import Parts


def plans_of(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return plans with one configuration; its network is that of own_prediction.py."""
    stages, base = sizes["poolings"] + 1, sizes["base_features"]
    network = {
        "n_stages": stages,
        "features_per_stage": [min(base * 2**stage, 320) for stage in range(stages)],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": network,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "drawn",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 1,
        "patch_size": sizes["patch"],
        "median_image_size_in_voxels": sizes["prepared_shape"],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": architecture,
        "batch_dice": True,
        **_resampling(),
    }
    return {
        "dataset_name": "Dataset001_Drawn",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }


def _resampling() -> dict[str, Any]:
    """Return what nnunetv2's planner writes by default."""
    orders = {"data": (False, 3), "seg": (True, 1), "probabilities": (False, 1)}
    chosen: dict[str, Any] = {}
    for what, (is_seg, order) in orders.items():
        settings = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        chosen[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        chosen[f"resampling_fn_{what}_kwargs"] = settings
    return chosen


def predictor_of(sizes: dict[str, Any], document: dict[str, Any]) -> Any:
    """Return nnunetv2's predictor with random weights."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(plans_of(sizes))
    configuration = plans.get_configuration("3d_fullres")
    build = nnUNetTrainer.build_network_architecture
    network = build(plans, configuration, 1, sizes["classes"], enable_deep_supervision=False)
    predictor = nnUNetPredictor(device=torch.device(sizes["device"]), allow_tqdm=False)
    rest = ([network.state_dict()], document, "nnUNetTrainer", (0, 1, 2))
    predictor.manual_initialization(network, plans, configuration, *rest)
    return predictor


def prepared(parts: Parts, predictor: Any, sizes: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    """Return images (1, *spatial) on the network's grid, and the properties for the export."""
    random, shape = np.random.default_rng(0), tuple(sizes["shape"])
    properties: dict[str, Any] = {"spacing": sizes["spacing"]}
    if not sizes["prepare"]:
        images = random.standard_normal((1, *sizes["prepared_shape"]), dtype=np.float32)
        box = [[0, size] for size in shape]
        shapes = {
            "shape_before_cropping": shape,
            "shape_after_cropping_and_before_resampling": shape,
        }
        return torch.from_numpy(images), {**properties, **shapes, "bbox_used_for_cropping": box}
    voxels = random.standard_normal((1, *shape), dtype=np.float32)
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    managers = (predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json)
    with parts.part("preprocess"):
        images, _, properties = preprocessor.run_case_npy(voxels, None, properties, *managers)
    parts.result["shape"] = images.shape[1:]
    return torch.from_numpy(images), properties


def main() -> None:
    sizes = json.loads(sys.argv[1])
    parts = Parts(sizes["device"], sizes["until"])
    from nnunetv2.inference import export_prediction

    names = {f"structure_{value}": value for value in range(1, sizes["classes"])}
    document = {
        "labels": {"background": 0, **names},
        "channel_names": {"0": "drawn"},
        "file_ending": ".nii.gz",
    }
    predictor = predictor_of(sizes, document)
    images, properties = prepared(parts, predictor, sizes)
    first = tuple(slice(0, size) for size in sizes["patch"])
    predict = predictor.predict_logits_from_preprocessed_data
    predict(images[(slice(None), *first)])  # cuDNN tries its algorithms
    parts.reset_peak()
    with parts.part("network"):
        logits = predict(images)
    managers = (predictor.plans_manager, predictor.configuration_manager, predictor.label_manager)
    export = export_prediction.convert_predicted_logits_to_segmentation_with_correct_shape
    with parts.part("export"):
        export(logits, *managers, properties)
    parts.leave()


if __name__ == "__main__":
    main()
