"""What the package registers: three losses, what prepares their arrays, and a variant of each."""

from __future__ import annotations

from nnunet_core import Component, Variant, hookimpl


@hookimpl
def nnunet_losses() -> list[Component]:
    """Return the losses."""
    return [
        Component(
            "skeleton_recall",
            "nnunet_losses.skeleton_recall:SkeletonRecall",
            "soft Dice + cross entropy + recall of skeletons, for thin tubes",
        ),
        Component(
            "boundary",
            "nnunet_losses.boundary:Boundary",
            "soft Dice + cross entropy, and more and more of the boundary loss",
        ),
        Component(
            "unified_focal",
            "nnunet_losses.unified_focal:UnifiedFocal",
            "asymmetric unified focal loss, for rare foreground",
        ),
        Component(
            "unified_focal_symmetric",
            "nnunet_losses.unified_focal:UnifiedFocal",
            "unified focal loss that treats every class alike",
            {"symmetric": True},
        ),
    ]


@hookimpl
def nnunet_preprocessors() -> list[Component]:
    """Return the default preprocessor with an array for a loss."""
    target = "nnunet_losses.maps:WithMaps"
    return [
        Component(
            "skeletons", target, "default, with tubes around skeletons", {"maps": ["skeleton"]}
        ),
        Component("distances", target, "default, with signed distances", {"maps": ["distance"]}),
    ]


@hookimpl
def nnunet_variants() -> list[Variant]:
    """Return each loss with the preprocessor that it needs."""
    loss = "nnunet-losses/{}".format
    # the paper's path from region to boundary, over 1000 epochs in the place of its 200
    slowly = {"loss": {"step": 0.002}}
    return [
        Variant(
            "skeleton_recall",
            "skeleton recall loss (Kirchhoff et al. 2024)",
            loss=loss("skeleton_recall"),
            preprocessor=loss("skeletons"),
        ),
        Variant(
            "boundary",
            "boundary loss (Kervadec et al. 2019)",
            loss=loss("boundary"),
            preprocessor=loss("distances"),
            settings=slowly,
        ),
        Variant(
            "unified_focal",
            "unified focal loss (Yeung et al. 2022)",
            loss=loss("unified_focal"),
        ),
    ]
