"""The plugin `builtin`: the default behaviour of every kind. Records only; nothing is imported
until it is used.
"""

from __future__ import annotations

from nnunet_builtin.observers.observer import check_names
from nnunet_core import Component, Variant, hookimpl


@hookimpl
def nnunet_planners() -> list[Component]:
    """Return the v2.1 planners."""
    target = "nnunet_builtin.planning.planner:PlannerV21"
    return [
        Component("v21", target, "nnU-Net v2.1 plans for 2D and 3D, sized for 8 GB of GPU memory"),
        Component("v21_2d", target, "nnU-Net v2.1 plans, 2D only", {"configurations": ["2d"]}),
        Component("v21_11GB", target, "v2.1 plans for 11 GB", {"gpu_memory_gb": 11}),
        Component("v21_16GB", target, "v2.1 plans for 16 GB", {"gpu_memory_gb": 16}),
        Component("v21_32GB", target, "v2.1 plans for 32 GB", {"gpu_memory_gb": 32}),
        Component(
            "v21_3convs", target, "three convolutions per resolution", {"convs_per_stage": 3}
        ),
        Component(
            "v21_no_resampling",
            target,
            "every case keeps its own spacing; no low resolution",
            {"low_resolution": False, "preprocessor": "no_resampling"},
        ),
        Component(
            "v21_fixed_spacing",
            target,
            "a target spacing that is set (target_spacing), with the 30 features of v1's planner "
            "of that kind",
            {"target_spacing": [2.0, 2.0, 2.0], "base_features": 30},
        ),
        Component(
            "v21_isotropic_mm",
            target,
            "patches shrink along their longest axis in mm",
            {"shrink": "mm"},
        ),
        Component(
            "v21_isotropic_voxels",
            target,
            "patches shrink along their longest axis in voxels",
            {"shrink": "voxels"},
        ),
        Component("v21_all_conv3", target, "kernels of 3 on every axis", {"all_conv3": True}),
        Component("v21_nonct", target, "z-score for every channel, CT too", {"schemes": {}}),
        Component(
            "v21_ct2",
            target,
            "CT by the statistics of each case, z-score otherwise",
            {"schemes": {"CT": "CT2"}},
        ),
    ]


@hookimpl
def nnunet_preprocessors() -> list[Component]:
    """Return what crops, resamples and normalises."""
    return [
        Component(
            "default",
            "nnunet_builtin.preprocessing.preprocessor:DefaultPreprocessor",
            "cubic resampling in 3D, for volumes",
        ),
        Component(
            "planes",
            "nnunet_builtin.preprocessing.preprocessor:DefaultPreprocessor",
            "cubic resampling within slices, never across them, for 2D networks",
            {"resample": "in_plane"},
        ),
        Component(
            "linear",
            "nnunet_builtin.preprocessing.preprocessor:DefaultPreprocessor",
            "linear resampling",
            {"order": 1},
        ),
        Component(
            "no_resampling",
            "nnunet_builtin.preprocessing.preprocessor:DefaultPreprocessor",
            "every case keeps its own spacing",
            {"resample": "none"},
        ),
        Component(
            "leave_z",
            "nnunet_builtin.preprocessing.preprocessor:DefaultPreprocessor",
            "every case keeps the spacing of its slices, also for 3D networks",
            {"resample": "in_plane"},
        ),
        Component(
            "v2",
            "nnunet_builtin.preprocessing.preprocessor:DefaultPreprocessor",
            "as nnU-Net v2: normalises, then resamples",
            {"steps": "v2"},
        ),
        Component(
            "v2_planes",
            "nnunet_builtin.preprocessing.preprocessor:DefaultPreprocessor",
            "the same within slices, for 2D networks",
            {"steps": "v2", "resample": "in_plane"},
        ),
    ]


@hookimpl
def nnunet_networks() -> list[Component]:
    """Return the U-Net of v1."""
    return [
        Component(
            "plain_unet",
            "nnunet_builtin.networks.plain_unet:PlainUNet",
            "the U-Net of nnU-Net v1, with deep supervision",
        ),
        Component(
            "residual_unet",
            "nnunet_builtin.networks.residual_unet:ResidualUNet",
            "the same with a residual encoder, as v1's ResencUNet",
        ),
    ]


@hookimpl
def nnunet_losses() -> list[Component]:
    """Return Dice and cross entropy and their relatives: one class with different settings."""
    target, any_labels = "nnunet_builtin.losses.dice_ce:DiceCE", {"labels": "any"}
    voxels_only, overlap_only = {**any_labels, "dice_weight": 0.0}, {**any_labels, "ce_weight": 0.0}
    tenth = {"top_k": 0.1}
    focal = {"focal_gamma": 2.0}
    misses = {"tversky_alpha": 0.3, "tversky_beta": 0.7}
    regions = {"labels": "regions", "smooth": 0.0}
    return [
        Component("dice_ce", target, "soft Dice + cross entropy"),
        Component(
            "dice_topk",
            target,
            "soft Dice + the hardest 10 % of cross entropy",
            {**any_labels, **tenth},
        ),
        Component("dice_focal", target, "soft Dice + focal loss", {**any_labels, **focal}),
        Component("dice_bce", target, "soft Dice + binary cross entropy, for regions", regions),
        Component("dice", target, "soft Dice alone", overlap_only),
        Component(
            "tversky",
            target,
            "Tversky loss: missed foreground costs more",
            {**overlap_only, **misses},
        ),
        Component("ce", target, "cross entropy alone; binary for regions", voxels_only),
        Component("topk", target, "the hardest 10 % of cross entropy", {**voxels_only, **tenth}),
        Component(
            "focal",
            target,
            "focal loss: cross entropy, less of easy voxels",
            {**voxels_only, **focal},
        ),
    ]


_STILL = {"rotation_degrees": 0, "generator_scale": 1.0}
_NEVER = ("rotation", "scaling", "brightness", "contrast", "inverted_gamma", "gamma")
_CLEAN = {f"{step}_probability": 0.0 for step in ("noise", "blur", "low_resolution")}
_LIGHT = {
    "rotation_degrees": 10,
    "scale_range": [0.9, 1.1],
    "generator_scale": 0.9,
    "brightness_range": [0.9, 1.1],
    "contrast_range": [0.9, 1.1],
    "gamma_range": [0.9, 1.1],
}
_FIRST = {
    **_CLEAN,
    **{f"{step}_probability": 0.0 for step in ("brightness", "contrast", "inverted_gamma")},
    "rotation_degrees": 15,
    "scale_range": [0.85, 1.25],
    "elastic_probability": 0.2,
    "elastic_alpha": [0, 900],
}
_INSANE = {
    "rotation_probability": 0.3,
    "elongated_degrees": 180,
    "scaling_probability": 0.3,
    "scale_range": [0.65, 1.6],
    "generator_scale": 0.7,
    "independent_scale_probability": 0.3,
    "elastic_probability": 0.3,
    "noise_probability": 0.15,
    "blur_range": [0.5, 1.5],
    "brightness_range": [0.7, 1.3],
    "additive_brightness_probability": 0.3,
    "additive_brightness_channel_probability": 1.0,
    "additive_brightness_deviation": 0.2,
    "contrast_range": [0.65, 1.5],
    "inverted_gamma_probability": 0.15,
    "gamma_range": [0.5, 1.6],
}


@hookimpl
def nnunet_augmentations() -> list[Component]:
    """Return the augmentation of the V2 trainer, stronger and weaker ones, and none."""
    v2 = "nnunet_builtin.augmentation.v2:AugmentationV2"
    return [
        Component("v2", v2, "rotation, scaling, noise, blur, contrast, gamma, mirroring"),
        Component(
            "v2_torch",
            "nnunet_builtin.augmentation.v2:AugmentationV2Torch",
            "the same as v2, on the device of the patches",
        ),
        Component(
            "mirror_only",
            v2,
            "mirroring alone",
            {**_STILL, **_CLEAN, **{f"{step}_probability": 0.0 for step in _NEVER}},
        ),
        Component(
            "light",
            v2,
            "mirroring, small rotation and scaling, slight changes of contrast; no noise, blur or "
            "low resolution",
            {**_CLEAN, **_LIGHT},
        ),
        Component(
            "first",
            v2,
            "v1's first trainer: elastic deformation, rotation, scaling, gamma, mirroring",
            _FIRST,
        ),
        Component(
            "insane",
            v2,
            "v1's insaneDA as in its DA3 trainer: elastic deformation, wide ranges",
            _INSANE,
        ),
        Component(
            "da5",
            "nnunet_builtin.augmentation.da5:DA5",
            "v1's DA5: quarter turns, median filter, rectangles, local brightness and gamma, "
            "sharpening",
        ),
        Component(
            "batchgenerators",
            "nnunet_builtin.augmentation.v1:Batchgenerators",
            "v2 made of the transforms of batchgenerators, as in v1: slower, to compare with",
        ),
        Component("none", "nnunet_builtin.augmentation.v2:NoAugmentation", "patches as they are"),
    ]


@hookimpl
def nnunet_trainers() -> list[Component]:
    """Return the V2 trainer."""
    return [
        Component(
            "v2",
            "nnunet_builtin.training.trainer:TrainerV2",
            "SGD with poly schedule, deep supervision, mixed precision",
        )
    ]


@hookimpl
def nnunet_predictors() -> list[Component]:
    """Return the sliding window."""
    return [
        Component(
            "sliding_window",
            "nnunet_builtin.inference.sliding_window:SlidingWindow",
            "overlapping windows with Gaussian weights, mirrored; the mean of the folds",
        ),
        Component(
            "sliding_window_logits",
            "nnunet_builtin.inference.sliding_window:SlidingWindow",
            "the same, averaging logits as nnU-Net v2 does",
            {"average": "logits"},
        ),
    ]


@hookimpl
def nnunet_postprocessors() -> list[Component]:
    """Return what cleans label maps, and nothing."""
    room = "nnunet_builtin.postprocessing"
    return [
        Component(
            "largest_component",
            f"{room}.largest_component:LargestComponent",
            "keep the largest component of classes where that helped on validation",
        ),
        Component(
            "minimum_size",
            f"{room}.minimum_size:MinimumSize",
            "remove components below a size, set or chosen where that helped on validation",
        ),
        Component(
            "fill_holes",
            f"{room}.fill_holes:FillHoles",
            "fill holes of labels, in the volume or in slices, where that helped on validation",
        ),
        Component("none", f"{room}.nothing:NoPostprocessing", "leave predictions as they are"),
    ]


@hookimpl
def nnunet_variants() -> list[Variant]:
    """Return the default of every run."""
    return [
        Variant(
            "default",
            "nnU-Net v1: v2.1 plans, V2 trainer",
            planner="builtin/v21",
            network="builtin/plain_unet",
            loss="builtin/dice_ce",
            augmentation="builtin/v2",
            trainer="builtin/v2",
            predictor="builtin/sliding_window",
            postprocessor="builtin/largest_component",
        ),
    ]


@hookimpl
def nnunet_run_started() -> None:
    """Say it when NNUNET_LOG names something else than the observers that there are."""
    check_names()
