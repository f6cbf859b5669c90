"""The augmentation of the V2 trainer, in loader processes or on the device of the training; and
none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_builtin.augmentation.cascade import CascadeOperators, CascadeRemoval, append_previous
from nnunet_builtin.augmentation.chance import (
    Axis,
    Degrees,
    NotNegative,
    RadiusRange,
    Range,
    Scale,
    Share,
    ZeroRange,
)
from nnunet_builtin.augmentation.degradation import Blur, LowResolution, Noise
from nnunet_builtin.augmentation.intensity import AdditiveBrightness, Brightness, Contrast, Gamma
from nnunet_builtin.augmentation.mask import MaskOutside
from nnunet_builtin.augmentation.pipeline import Pipeline
from nnunet_builtin.augmentation.spatial import Spatial
from nnunet_builtin.augmentation.symmetries import Mirror

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nnunet_core.contracts.augmentation import Step
    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class AugmentationV2(Pipeline):
    """The augmentation of nnU-Net v1's V2 trainer, and by its settings of the variants of that
    trainer.

    Every step has a probability per sample; some have a second one per channel. A range around 1 is
    drawn from below and above 1 equally often, except by brightness.

    Args:
        rotation_probability: Of rotating.
        rotation_degrees: Largest angle; None is 30 in volumes, 180 in planes, `elongated_degrees`
            in elongated planes.
        scaling_probability, scale_range: Of coordinates; above 1 it shrinks what is seen.
        generator_scale: Patches are cut this much larger (divided by it), so that shrinking finds
            image there.
        noise_probability, noise_range: Gaussian noise of this standard deviation, the same for all
            channels.
        blur_probability, blur_channel_probability, blur_range: Gaussian blur, standard deviation in
            voxels.
        brightness_probability, brightness_range: Factor of the intensity.
        contrast_probability, contrast_range: Factor of the distance to the mean, clipped to the
            values before.
        low_resolution_probability, low_resolution_channel_probability, low_resolution_range: Down
            and up again; the resolution as a fraction.
        inverted_gamma_probability, gamma_probability, gamma_range: Exponent, mean and standard
            deviation are kept.
        mirror_probability, mirror_axes: Per axis; None mirrors all axes.
        rotation_axis_probability: Of rotating about each axis when rotating.
        elongated_degrees: Largest angle in planes with one side more than 1.5 times the other.
        independent_scale_probability: Of one factor per axis when scaling, instead of one for all.
        elastic_probability, elastic_range: Elastic deformation: noise smoothed by a Gaussian of
            this fraction of the patch, that moves voxels by up to an eighth to a half of it.
        elastic_alpha, elastic_sigma: Elastic deformation in voxels instead: noise from -1 to 1
            smoothed by a Gaussian of this standard deviation, times alpha; null follows
            elastic_range.
        additive_brightness_probability, additive_brightness_channel_probability,
            additive_brightness_deviation: Added to the intensity, normally distributed.
        contrast_channel_probability: Of a change of contrast in each channel.
        cascade_operator_probability, cascade_operator_label_probability, cascade_operator_radius:
            Per sample and per class: dilation, erosion, closing or opening of the previous stage
            with a ball of this radius, voxels.
        cascade_removal_probability, cascade_removal_size, cascade_removal_fill_probability: Per
            sample: removal of one component of each class of the previous stage, if smaller than
            this share of the patch; filled with another class by the last. In v1 none is ever small
            enough; 0.15 is what it meant.
        steps: Their order, by short name or as `package.module:Class`, with settings
            `{"package.module:Class": {...}}`; null is the default order.
        extra_steps: Further steps after a step of that name, or at the `start`: `{"noise":
            ["package.module:Class"]}`.
    """

    rotation_probability: Share = Spatial.rotation_probability
    rotation_degrees: Degrees | None = Spatial.rotation_degrees
    scaling_probability: Share = Spatial.scaling_probability
    scale_range: Range = Spatial.scale_range
    generator_scale: Scale = Spatial.generator_scale
    noise_probability: Share = Noise.probability
    noise_range: ZeroRange = Noise.range
    blur_probability: Share = Blur.probability
    blur_channel_probability: Share = Blur.channel_probability
    blur_range: Range = Blur.range
    brightness_probability: Share = Brightness.probability
    brightness_range: Range = Brightness.range
    contrast_probability: Share = Contrast.probability
    contrast_range: Range = Contrast.range
    low_resolution_probability: Share = LowResolution.probability
    low_resolution_channel_probability: Share = LowResolution.channel_probability
    low_resolution_range: Range = LowResolution.range
    inverted_gamma_probability: Share = 0.1
    gamma_probability: Share = Gamma.probability
    gamma_range: Range = Gamma.range
    mirror_probability: Share = Mirror.probability
    mirror_axes: tuple[Axis, ...] | None = Mirror.axes
    rotation_axis_probability: Share = Spatial.rotation_axis_probability
    elongated_degrees: Degrees = Spatial.elongated_degrees
    independent_scale_probability: Share = Spatial.independent_scale_probability
    elastic_probability: Share = Spatial.elastic_probability
    elastic_range: ZeroRange = Spatial.elastic_range
    elastic_alpha: ZeroRange | None = Spatial.elastic_alpha
    elastic_sigma: Range = Spatial.elastic_sigma
    additive_brightness_probability: Share = AdditiveBrightness.probability
    additive_brightness_channel_probability: Share = AdditiveBrightness.channel_probability
    additive_brightness_deviation: NotNegative = AdditiveBrightness.deviation
    contrast_channel_probability: Share = Contrast.channel_probability
    cascade_operator_probability: Share = CascadeOperators.probability
    cascade_operator_label_probability: Share = CascadeOperators.label_probability
    cascade_operator_radius: RadiusRange = CascadeOperators.radius
    cascade_removal_probability: Share = CascadeRemoval.probability
    cascade_removal_size: Share = CascadeRemoval.size
    cascade_removal_fill_probability: Share = CascadeRemoval.fill_probability

    def default_steps(self) -> dict[str, Step]:
        """Return the steps with the settings, in v1's order.

        Additive brightness comes after the factor, as in v1. v1's stronger variants have it before
        the last gamma step, which is the same: every step between moves with the mean.
        """
        return {
            "spatial": self.step(Spatial, ""),
            "noise": self.step(Noise, "noise_"),
            "blur": self.step(Blur, "blur_"),
            "brightness": self.step(Brightness, "brightness_"),
            "additive_brightness": self.step(AdditiveBrightness, "additive_brightness_"),
            "contrast": self.step(Contrast, "contrast_"),
            "low_resolution": self.step(LowResolution, "low_resolution_"),
            "inverted_gamma": self.inverted_gamma(),
            "gamma": self.step(Gamma, "gamma_"),
            "mirror": self.step(Mirror, "mirror_"),
            **self.last_steps(),
        }

    def step(self, kind: type[Any], prefix: str) -> Step:
        """Return a step whose fields have the values of the settings of these names with a prefix,
        where there are any.
        """
        settings = vars(self)
        names = [field.name for field in fields(kind) if prefix + field.name in settings]
        step: Step = kind(**{name: settings[prefix + name] for name in names})
        return step

    def inverted_gamma(self) -> Gamma:
        """Return the step of that name; it shares its range with the other gamma."""
        return Gamma(self.inverted_gamma_probability, range=self.gamma_range, inverted=True)

    def last_steps(self) -> dict[str, Step]:
        """Return the mask, and the steps that change the previous stage of a cascade."""
        return {
            "mask": MaskOutside(),
            "cascade_operator": self.step(CascadeOperators, "cascade_operator_"),
            "cascade_removal": self.step(CascadeRemoval, "cascade_removal_"),
        }


@dataclass(frozen=True)
class AugmentationV2Torch(AugmentationV2):
    """The augmentation `v2`, with its settings, in the training process on the device where the
    patches are.

    Patches are what `v2` makes with the same seed, up to rounding; everything random is drawn on
    the CPU.
    """

    def augment_tensors(
        self, batch: Mapping[str, Any], configuration: Configuration, seed: int
    ) -> dict[str, Any]:
        """Return the augmented batch on its device (abilities.AugmentsTensors). Raises UsageError,
        see `augment`.
        """
        return self.transform(batch, configuration, seed)


class NoAugmentation:
    """Patches as they were cut."""

    def generator_patch_size(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the network's patch."""
        return configuration.patch_size

    def mirrored_axes(self, configuration: Configuration) -> tuple[int, ...]:  # noqa: ARG002
        """Return no axis: prediction does not mirror either."""
        return ()

    def augment(
        self,
        batch: dict[str, np.ndarray],
        configuration: Configuration,
        seed: int,  # noqa: ARG002
    ) -> dict[str, np.ndarray]:
        """Return the batch with label -1, outside the non-zero region, as background; append the
        previous stage.
        """
        return append_previous({**batch, "label": np.maximum(batch["label"], 0)}, configuration)
