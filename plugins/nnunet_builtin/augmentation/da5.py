"""The augmentation of v1's DA5 trainer: quarter turns, transposition, median, rectangles, local
brightness and gamma.

Spec: training, section 11. Where v1 chooses between two steps for a batch, this does for each
sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnunet_builtin.augmentation.chance import (
    Degrees,
    NotNegative,
    Range,
    Scale,
    Share,
    happens,
)
from nnunet_builtin.augmentation.degradation import LowResolution, Noise
from nnunet_builtin.augmentation.intensity import AdditiveBrightness, Brightness, Contrast, Gamma
from nnunet_builtin.augmentation.local import (
    LocalBrightness,
    LocalGamma,
    MedianOrBlur,
    Rectangles,
    Sharpening,
)
from nnunet_builtin.augmentation.spatial import Spatial
from nnunet_builtin.augmentation.symmetries import Mirror, QuarterTurns, Transposition
from nnunet_builtin.augmentation.v2 import AugmentationV2

if TYPE_CHECKING:
    import numpy as np

    from nnunet_core.contracts.augmentation import Sample, Step


@dataclass(frozen=True)
class EitherContrast(Contrast):
    """Contrast that is clipped in one sample of two."""

    def draw(self, rng: np.random.Generator, sample: Sample) -> Any:
        """Return {channel: factor}, and whether values are clipped."""
        factors = super().draw(rng, sample)
        return (factors, happens(rng, 0.5)) if factors else None

    def apply(self, sample: Sample, decision: Any) -> Sample:
        """Stretch or squeeze the values about their mean."""
        factors, clipped = decision
        return Contrast(clipped=clipped).apply(sample, factors)


@dataclass(frozen=True)
class DA5(AugmentationV2):
    """The augmentation of nnU-Net v1's DA5 trainer.

    It has the settings of `v2` with other defaults: factors of brightness and plain gamma are off,
    and both of its gamma steps invert the image, as in v1. Sizes of the local steps follow the
    patch.

    Args:
        axes_probability: Of quarter turns, and of a permutation; of those axes that share their
            number of voxels.
        median_probability, median_channel_probability: Median filter of 2 to 7 voxels; one sample
            in two has this step and no blur, the other blur and not this step.
        rectangle_probability: Of 1 to 5 boxes of a tenth to a third of the patch; half of the
            channels, as below.
        gradient_probability: Of a Gaussian of brightness -5 to -1 or 1 to 5 at its peak.
        local_gamma_probability: Of an exponent of 0.01 to 0.8 or 1.5 to 4 around a place.
        sharpening_probability, sharpening_range: Of subtracting the Laplacian times this strength.
        local_channel_probability: Of each channel in the last four.
    """

    rotation_probability: Share = 0.4
    rotation_axis_probability: Share = 0.5
    elongated_degrees: Degrees = 180.0
    scale_range: Range = (0.7, 1.43)
    independent_scale_probability: Share = 1.0
    generator_scale: Scale = 0.7
    blur_range: Range = (0.3, 1.5)
    brightness_probability: Share = 0.0
    additive_brightness_probability: Share = 0.1
    additive_brightness_deviation: NotNegative = 0.5
    contrast_probability: Share = 0.2
    contrast_channel_probability: Share = 0.5
    contrast_range: Range = (0.5, 2.0)
    low_resolution_probability: Share = 0.15
    low_resolution_range: Range = (0.25, 1.0)
    gamma_probability: Share = 0.0
    axes_probability: Share = 0.5
    median_probability: Share = 0.2
    median_channel_probability: Share = 0.5
    rectangle_probability: Share = 0.4
    gradient_probability: Share = 0.3
    local_gamma_probability: Share = 0.3
    sharpening_probability: Share = 0.2
    sharpening_range: Range = (0.1, 1.0)
    local_channel_probability: Share = 0.5

    def default_steps(self) -> dict[str, Step]:
        """Return the steps with the settings, in v1's order."""
        local = self.local_channel_probability
        return {
            "spatial": self.step(Spatial, ""),
            "quarter_turns": QuarterTurns(self.axes_probability),
            "transposition": Transposition(self.axes_probability),
            "median_or_blur": self.step(MedianOrBlur, ""),
            "noise": self.step(Noise, "noise_"),
            "brightness": self.step(Brightness, "brightness_"),
            "additive_brightness": self.step(AdditiveBrightness, "additive_brightness_"),
            "contrast": self.step(EitherContrast, "contrast_"),
            "low_resolution": self.step(LowResolution, "low_resolution_"),
            "inverted_gamma": self.inverted_gamma(),
            "second_inverted_gamma": self.inverted_gamma(),
            "gamma": self.step(Gamma, "gamma_"),
            "mirror": self.step(Mirror, "mirror_"),
            "rectangles": Rectangles(self.rectangle_probability, local),
            "gradient": LocalBrightness(self.gradient_probability, local),
            "local_gamma": LocalGamma(self.local_gamma_probability, local),
            "sharpening": Sharpening(self.sharpening_probability, local, self.sharpening_range),
            **self.last_steps(),
        }
