"""The plugin `resenc`: records only; nothing is imported until it is used."""

from __future__ import annotations

from nnunet_core import Component, Variant, hookimpl

_PLANNER = "nnunet_resenc.planner:ResEncPlanner"

#: v2's reference values of each size: GB of GPU memory, and feature-map values that fit them.
_SIZES: dict[str, dict[str, float]] = {
    "m": {"memory_gb": 8, "values_3d": 680_000_000, "values_2d": 135_000_000},
    "l": {"memory_gb": 24, "values_3d": 2_100_000_000, "values_2d": 380_000_000},
    "xl": {"memory_gb": 40, "values_3d": 3_600_000_000, "values_2d": 560_000_000},
}

#: The share of a dataset that a batch of the variants may hold: that of nnU-Net's plain networks.
_SHARE = 0.05


@hookimpl
def nnunet_planners() -> list[Component]:
    """Return v2's planners ResEncM, ResEncL and ResEncXL: one class, three references."""
    return [
        Component(
            f"resenc_{size}",
            _PLANNER,
            f"nnU-Net v2's ResEnc{size.upper()} plans, sized for {values['memory_gb']} GB",
            {
                "gpu_memory_gb": values["memory_gb"],
                "reference_gb": values["memory_gb"],
                "reference_values_3d": values["values_3d"],
                "reference_values_2d": values["values_2d"],
            },
        )
        for size, values in _SIZES.items()
    ]


@hookimpl
def nnunet_preprocessors() -> list[Component]:
    """Return v2's way to prepare slices: the built-in preprocessor with v2's order of steps."""
    return [
        Component(
            "v2_planes",
            "nnunet_builtin.preprocessing.preprocessor:DefaultPreprocessor",
            "as nnU-Net v2: normalises, then resamples within slices; for 2D networks",
            {"steps": "v2", "resample": "in_plane"},
        )
    ]


@hookimpl
def nnunet_networks() -> list[Component]:
    """Return v2's residual-encoder U-Net."""
    return [
        Component(
            "resenc_unet",
            "nnunet_resenc.network:ResEncUNet",
            "nnU-Net v2's U-Net with 1, 3, 4, 6, 6, ... residual blocks",
        )
    ]


@hookimpl
def nnunet_variants() -> list[Variant]:
    """Return a variant of each size."""
    return [
        Variant(
            f"resenc_{size}",
            f"residual-encoder U-Net for {values['memory_gb']} GB, small datasets in small batches",
            planner=f"resenc/resenc_{size}",
            network="resenc/resenc_unet",
            predictor="builtin/sliding_window_logits",
            settings={"planner": {"dataset_share": _SHARE}},
        )
        for size, values in _SIZES.items()
    ]
