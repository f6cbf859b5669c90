"""v1's augmentation, made of batchgenerators' transforms: what the built-in steps are compared
with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnunet_builtin.augmentation.cascade import CascadeOperators
from nnunet_builtin.augmentation.mask import MaskOutside
from nnunet_builtin.augmentation.pipeline import Pipeline
from nnunet_builtin.augmentation.spatial import Spatial, spatial_axes
from nnunet_builtin.augmentation.symmetries import Mirror
from nnunet_builtin.augmentation.transforms import Transform, seeded
from nnunet_core.contracts.augmentation import Sample, Step
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class Batchgenerators(Pipeline):
    """The augmentation of v1's V2 trainer, of the transforms and with the parameters of v1 (spec:
    training, section 5).

    What v1 does with code of its own, the mask and the operators of cascades, is done by the
    built-in steps.
    """

    def default_steps(self) -> dict[str, Step]:
        """Return v1's steps."""
        return {
            "spatial": V1Spatial(),
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


@dataclass(frozen=True)
class V1Spatial(Step):
    """The library's spatial transform with the label rule of v1's time (spec: training, section 5).

    Its newer versions give a voxel the label of the largest weight. v1 gives it the largest label
    with half of the weights: the 0/1 masks of the labels are moved as images are, with the same
    seed, which makes the same coordinates.
    """

    def draw(self, rng: np.random.Generator, sample: Sample) -> int:  # noqa: ARG002
        """Return the seed."""
        return int(rng.integers(2**32))

    def apply(self, sample: Sample, decision: int) -> Sample:
        """Move images and label maps.

        Raises:
            UsageError: There are further arrays.
        """
        if sample.arrays:
            raise UsageError(
                "The augmentation 'batchgenerators' cannot move the arrays "
                f"{', '.join(sample.arrays)}. Use 'v2'."
            )
        configuration = sample.configuration
        axes = spatial_axes(configuration)

        def moved(tensor: torch.Tensor, order: int, outside: float) -> torch.Tensor:
            data = tensor.reshape(1, -1, *tensor.shape[-axes:]).cpu().numpy()
            with seeded(decision):
                found = _spatial(configuration, order, outside)(data=data)["data"]
            return torch.from_numpy(found).reshape(len(tensor), *configuration.patch_size)

        def moved_map(maps: torch.Tensor) -> torch.Tensor:
            result = torch.zeros(len(maps), *configuration.patch_size, dtype=maps.dtype)
            for value in maps.unique().tolist():
                result[moved((maps == value).float(), 1, -1) >= 0.5] = value
            return result.to(maps.device)

        return sample.moved(lambda images: moved(images, 3, 0).to(images.device), moved_map)

    def input_size(self, size: tuple[int, ...], configuration: Configuration) -> tuple[int, ...]:
        """Return that of the built-in step."""
        return Spatial().input_size(size, configuration)


def _spatial(configuration: Configuration, order: int, outside: float) -> Any:
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
        border_cval_data=outside,
        order_data=order,
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
