"""v1's augmentation, made of batchgenerators' transforms: what the built-in steps are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnunet_builtin.augmentation.cascade import CascadeOperators
from nnunet_builtin.augmentation.mask import MaskOutside
from nnunet_builtin.augmentation.mirror import Mirror
from nnunet_builtin.augmentation.pipeline import Pipeline
from nnunet_builtin.augmentation.spatial import Spatial, spatial_axes
from nnunet_builtin.augmentation.transforms import Transform

if TYPE_CHECKING:
    from nnunet_core.contracts.augmentation import Step
    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class Batchgenerators(Pipeline):
    """The augmentation of v1's V2 trainer, of the transforms and with the parameters of v1 (spec: training, section 5).

    What v1 does with code of its own, the mask and the operators of cascades, is done by the built-in steps.
    """

    def default_steps(self) -> dict[str, Step]:
        """Return v1's steps."""
        return {
            "spatial": Transform(_spatial, Spatial(), in_plane=True),
            "noise": Transform(_noise),
            "blur": Transform(_blur),
            "brightness": Transform(_brightness),
            "contrast": Transform(_contrast),
            "low_resolution": Transform(_low_resolution),
            "inverted_gamma": Transform(_inverted_gamma),
            "gamma": Transform(_gamma),
            "mirror": Transform(_mirror, Mirror()),
            "mask": MaskOutside(),
            "cascade_operator": CascadeOperators(),
        }


def _spatial(configuration: Configuration) -> Any:
    from batchgenerators.transforms.spatial_transforms import SpatialTransform

    angle = Spatial().largest_angle(configuration)
    return SpatialTransform(
        configuration.patch_size[-spatial_axes(configuration) :],
        do_elastic_deform=False,
        angle_x=(-angle, angle),
        angle_y=(-angle, angle),
        angle_z=(-angle, angle),
        scale=(0.7, 1.4),
        border_mode_data="constant",
        border_mode_seg="constant",
        border_cval_seg=-1,
        order_data=3,
        order_seg=1,
        random_crop=False,
        p_scale_per_sample=0.2,
        p_rot_per_sample=0.2,
    )


def _noise(configuration: Configuration) -> Any:  # noqa: ARG001
    from batchgenerators.transforms.noise_transforms import GaussianNoiseTransform

    return GaussianNoiseTransform(p_per_sample=0.1)


def _blur(configuration: Configuration) -> Any:  # noqa: ARG001
    from batchgenerators.transforms.noise_transforms import GaussianBlurTransform

    return GaussianBlurTransform((0.5, 1.0), p_per_sample=0.2, p_per_channel=0.5)


def _brightness(configuration: Configuration) -> Any:  # noqa: ARG001
    from batchgenerators.transforms.color_transforms import BrightnessMultiplicativeTransform

    return BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=0.15)


def _contrast(configuration: Configuration) -> Any:  # noqa: ARG001
    from batchgenerators.transforms.color_transforms import ContrastAugmentationTransform

    return ContrastAugmentationTransform(p_per_sample=0.15)


def _low_resolution(configuration: Configuration) -> Any:
    from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform

    return SimulateLowResolutionTransform(
        (0.5, 1),
        per_channel=True,
        p_per_channel=0.5,
        order_downsample=0,
        order_upsample=3,
        p_per_sample=0.25,
        ignore_axes=(0,) if configuration.dummy_2d_augmentation else None,
    )


def _inverted_gamma(configuration: Configuration) -> Any:  # noqa: ARG001
    from batchgenerators.transforms.color_transforms import GammaTransform

    return GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1)


def _gamma(configuration: Configuration) -> Any:  # noqa: ARG001
    from batchgenerators.transforms.color_transforms import GammaTransform

    return GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3)


def _mirror(configuration: Configuration) -> Any:
    from batchgenerators.transforms.spatial_transforms import MirrorTransform

    return MirrorTransform(tuple(range(configuration.dimensions)))
