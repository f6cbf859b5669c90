"""The plugin `monai`: records only; nothing is imported until it is used."""

from __future__ import annotations

from typing import Any

from nnunet_core import Component, Variant, hookimpl

#: Halvings of each network that has strides of its own.
_HALVINGS = {"segresnet": 3, "swinunetr": 5, "unetr": 4}


@hookimpl
def nnunet_networks() -> list[Component]:
    """Return MONAI's networks."""
    return [
        Component(
            "segresnet",
            "nnunet_monai.segresnet:SegResNet",
            "MONAI's SegResNet: residual blocks with group norm",
        ),
        Component(
            "segresnet_ds",
            "nnunet_monai.segresnet:SegResNetDS",
            "MONAI's SegResNetDS: the same with deep supervision, for anisotropic voxels, too",
        ),
        Component(
            "swinunetr",
            "nnunet_monai.swinunetr:SwinUNETR",
            "MONAI's SwinUNETR: attention within shifted windows",
        ),
        Component(
            "unetr",
            "nnunet_monai.unetr:UNETR",
            "MONAI's UNETR: attention between all tokens of a patch",
        ),
        Component(
            "dynunet",
            "nnunet_monai.dynunet:DynUNet",
            "MONAI's DynUNet: the U-Net of the plans, with deep supervision",
        ),
    ]


@hookimpl
def nnunet_planners() -> list[Component]:
    """Return the planner of networks with strides of their own."""
    return [
        Component(
            "v21_even",
            "nnunet_monai.planner:EvenPlanner",
            "nnU-Net v2.1 plans for networks that halve every axis alike",
        )
    ]


@hookimpl
def nnunet_variants() -> list[Variant]:
    """Return each network with its planner, and with the optimiser that its authors use."""
    residual = _adam(learning_rate=2e-4)
    transformer = {**_adam(learning_rate=1e-4), "warmup_epochs": 50}
    return [
        _variant("segresnet", "SegResNet of MONAI, trained with AdamW", residual),
        _variant("segresnet_ds", "SegResNetDS of MONAI, trained with AdamW", residual),
        _variant("swinunetr", "SwinUNETR of MONAI, trained with AdamW and a warm-up", transformer),
        _variant("unetr", "UNETR of MONAI, trained with AdamW and a warm-up", transformer),
        _variant("dynunet", "DynUNet of MONAI, trained as nnU-Net", {}),
    ]


def _adam(learning_rate: float) -> dict[str, Any]:
    return {
        "optimizer": "AdamW",
        "learning_rate": learning_rate,
        "weight_decay": 1e-5,
        "schedule": "cosine",
    }


def _variant(network: str, summary: str, trainer: dict[str, Any]) -> Variant:
    halvings = _HALVINGS.get(network)
    settings = {"trainer": trainer} if trainer else {}
    if halvings is not None:
        settings["planner"] = {"halvings": halvings}
    return Variant(
        f"monai_{network}",
        summary,
        planner=None if halvings is None else "monai/v21_even",
        network=f"monai/{network}",
        settings=settings,
    )
