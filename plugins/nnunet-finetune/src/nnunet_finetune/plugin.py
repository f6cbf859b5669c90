"""What the package registers: a trainer, a planner for published encoders, and variants."""

from __future__ import annotations

from nnunet_core import Component, Variant, hookimpl


@hookimpl
def nnunet_planners() -> list[Component]:
    """Return the planner that gives a dataset the network of a pretrained encoder."""
    return [
        Component(
            "resenc_l_160",
            "nnunet_finetune.planner:PlannerOfEncoder",
            "the sizes of the ResEncL encoders of nnssl: 160 voxels of 1 mm, five poolings",
        )
    ]


@hookimpl
def nnunet_trainers() -> list[Component]:
    """Return the trainer."""
    return [
        Component(
            "finetune",
            "nnunet_finetune.trainer:Finetune",
            "starts from --pretrained weights: heads first, then all with a rate that rises",
        )
    ]


@hookimpl
def nnunet_variants() -> list[Variant]:
    """Return the published ways to fine-tune."""
    trainer = "nnunet-finetune/finetune"
    # the decoder first, then all: two rises of the rate, 50 epochs each
    sawtooth = {
        "first_parts": ["upsampling", "decoder", "heads"],
        "first_epochs": 50,
        "warmup_epochs": 50,
    }
    resenc_l = {"layout": "v2", "blocks": [1, 3, 4, 6, 6, 6]}
    return [
        Variant("finetune", "from supervised weights, as MultiTalent", trainer=trainer),
        Variant(
            "finetune_sawtooth",
            "the decoder first, for weights of an encoder alone, as OpenMind",
            trainer=trainer,
            settings={"trainer": sawtooth},
        ),
        Variant(
            "finetune_resenc_l",
            "the ResEncL encoders that nnssl publishes (OpenMind)",
            planner="nnunet-finetune/resenc_l_160",
            network="builtin/residual_unet",
            trainer=trainer,
            settings={"trainer": sawtooth, "network": resenc_l},
        ),
    ]
