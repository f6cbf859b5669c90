"""What chance decides for a training patch: the settings, and how a draw is made of them.

`apply` and its relative on tensors then do what was drawn, and have no randomness of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AfterValidator, Field, PositiveFloat

from nnunet_builtin.augmentation.decisions import Channels, Draw, Elastic, Operator, Removal
from nnunet_builtin.augmentation.geometry import rotation, spatial_axes
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"the first of {values} must not be larger than the second")
    return values


NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Axis = Annotated[int, Field(ge=0, le=2)]
Range = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)]
ZeroRange = Annotated[tuple[NotNegative, PositiveFloat], AfterValidator(_ascending)]
Radius = Annotated[float, Field(gt=0, le=60)]
RadiusRange = Annotated[tuple[Radius, Radius], AfterValidator(_ascending)]

#: A plane with one side more than this many times the other is elongated.
_ELONGATED = 1.5
OPERATIONS = ("dilation", "erosion", "closing", "opening")


class Dice:
    """Random decisions: the questions that a draw asks.

    Args:
        rng: Source of everything random.
        channels: Of the sample's images.
    """

    def __init__(self, rng: np.random.Generator, channels: int) -> None:
        self.rng = rng
        self.channels = channels

    def happens(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.rng.random() < probability

    def within(self, limits: tuple[float, float]) -> float:
        """Return a number of the range."""
        return self.rng.uniform(*limits)

    def around_one(self, limits: tuple[float, float]) -> float:
        """Return a number of the range, below and above 1 equally often."""
        low, high = limits
        if low < 1 < high:
            low, high = (low, 1) if self.happens(0.5) else (1, high)
        return self.rng.uniform(low, high)

    def each(
        self,
        probability: float,
        value: Callable[[tuple[float, float]], float],
        limits: tuple[float, float],
        per_channel: float = 1,
    ) -> dict[int, float]:
        """Return a value for every channel to which it happens, if it happens to the sample at all."""
        sample = self.happens(probability)
        return (
            {c: value(limits) for c in range(self.channels) if self.happens(per_channel)}
            if sample
            else {}
        )


@dataclass(frozen=True)
class AugmentationSettings:
    """Settings of the steps, described at `AugmentationV2`, and how what they say is drawn."""

    rotation_probability: Share = 0.2
    rotation_degrees: Degrees | None = None
    scaling_probability: Share = 0.2
    scale_range: Range = (0.7, 1.4)
    generator_scale: PositiveFloat = 0.85
    noise_probability: Share = 0.1
    noise_range: ZeroRange = (0.0, 0.1)
    blur_probability: Share = 0.2
    blur_channel_probability: Share = 0.5
    blur_range: Range = (0.5, 1.0)
    brightness_probability: Share = 0.15
    brightness_range: Range = (0.75, 1.25)
    contrast_probability: Share = 0.15
    contrast_range: Range = (0.75, 1.25)
    low_resolution_probability: Share = 0.25
    low_resolution_channel_probability: Share = 0.5
    low_resolution_range: Range = (0.5, 1.0)
    inverted_gamma_probability: Share = 0.1
    gamma_probability: Share = 0.3
    gamma_range: Range = (0.7, 1.5)
    mirror_probability: Share = 0.5
    mirror_axes: tuple[Axis, ...] | None = None
    rotation_axis_probability: Share = 1.0
    elongated_degrees: Degrees = 15.0
    independent_scale_probability: Share = 0.0
    elastic_probability: Share = 0.0
    elastic_range: ZeroRange = (0.0, 0.25)
    elastic_alpha: ZeroRange | None = None
    elastic_sigma: Range = (9.0, 13.0)
    additive_brightness_probability: Share = 0.0
    additive_brightness_channel_probability: Share = 0.5
    additive_brightness_deviation: NotNegative = 0.1
    contrast_channel_probability: Share = 1.0
    cascade_operator_probability: Share = 0.4
    cascade_operator_label_probability: Share = 1.0
    cascade_operator_radius: RadiusRange = (1.0, 8.0)
    cascade_removal_probability: Share = 0.2
    cascade_removal_size: Share = 0.0
    cascade_removal_fill_probability: Share = 0.0

    def generator_patch_size(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the patch that still fills the network's after the largest rotation about one axis and shrinking.

        The rotation acts on the vector of sizes, by 90 degrees at most; with dummy 2D axis 0 stays.
        """
        axes, angle = (
            spatial_axes(configuration),
            min(self._largest_angle(configuration), math.pi / 2),
        )
        kept, turned = (
            configuration.patch_size[:-axes],
            np.array(configuration.patch_size[-axes:], float),
        )
        size = turned
        for angles in angle * np.eye(3) if axes == 3 else [(angle,)]:
            size = np.maximum(size, np.abs(turned @ rotation(angles)))
        return (*kept, *(int(voxels / self.generator_scale) for voxels in size))

    def draw(self, rng: np.random.Generator, configuration: Configuration, channels: int) -> Draw:
        """Draw what happens to one sample of so many image channels.

        Steps that are off by default and those of a cascade come last, and draw nothing where they cannot happen.

        Raises:
            UsageError: `mirror_axes` names an axis that the patch does not have, or one twice.
        """
        dice = Dice(rng, channels)
        blur_share, zoom_share = (
            self.blur_channel_probability,
            self.low_resolution_channel_probability,
        )
        rotated = dice.happens(self.rotation_probability)
        return Draw(
            angles=self._angles(rng, configuration) if rotated else None,
            scale=self._scale(dice, configuration)
            if dice.happens(self.scaling_probability)
            else None,
            noise=self._noise(dice, configuration)
            if dice.happens(self.noise_probability)
            else None,
            blur=dice.each(self.blur_probability, dice.within, self.blur_range, blur_share),
            brightness=dice.each(self.brightness_probability, dice.within, self.brightness_range),
            contrast=dice.each(
                self.contrast_probability,
                dice.around_one,
                self.contrast_range,
                self.contrast_channel_probability,
            ),
            zoom=dice.each(
                self.low_resolution_probability, dice.within, self.low_resolution_range, zoom_share
            ),
            inverted_gamma=dice.each(
                self.inverted_gamma_probability, dice.around_one, self.gamma_range
            ),
            gamma=dice.each(self.gamma_probability, dice.around_one, self.gamma_range),
            mirrored=tuple(
                a
                for a in self.mirrored_axes(configuration)
                if dice.happens(self.mirror_probability)
            ),
            elastic=self._elastic(dice, configuration) if self.elastic_probability else None,
            shift=self._shift(dice) if self.additive_brightness_probability else {},
            operators=self._operators(dice, configuration),
            removals=self._removals(dice, configuration),
        )

    def _largest_angle(self, configuration: Configuration) -> float:
        """Return radians."""
        patch = configuration.patch_size
        if self.rotation_degrees is not None:
            return math.radians(self.rotation_degrees)
        if spatial_axes(configuration) == 3:
            return math.radians(30)
        elongated = len(patch) == 2 and max(patch) / min(patch) > _ELONGATED
        return math.radians(self.elongated_degrees if elongated else 180)

    def _angles(self, rng: np.random.Generator, configuration: Configuration) -> tuple[float, ...]:
        largest = self._largest_angle(configuration)
        angles = rng.uniform(-largest, largest, 3 if spatial_axes(configuration) == 3 else 1)
        if self.rotation_axis_probability < 1:
            angles *= rng.random(len(angles)) < self.rotation_axis_probability
        return tuple(angles)

    def _scale(self, dice: Dice, configuration: Configuration) -> float | tuple[float, ...]:
        if self.independent_scale_probability and dice.happens(self.independent_scale_probability):
            return tuple(
                dice.around_one(self.scale_range) for _ in range(spatial_axes(configuration))
            )
        return dice.around_one(self.scale_range)

    def _noise(self, dice: Dice, configuration: Configuration) -> np.ndarray:
        deviation = np.float32(dice.within(self.noise_range))
        return (
            dice.rng.standard_normal((dice.channels, *configuration.patch_size), np.float32)
            * deviation
        )

    def _elastic(self, dice: Dice, configuration: Configuration) -> Elastic | None:
        if not dice.happens(self.elastic_probability):
            return None
        patch = configuration.patch_size[-spatial_axes(configuration) :]
        if self.elastic_alpha is not None:
            factor, deviations = (
                dice.within(self.elastic_alpha),
                (dice.within(self.elastic_sigma),) * len(patch),
            )
            return Elastic(_even_noise(dice, patch), deviations, factor=factor)
        smoothness = dice.within(self.elastic_range)
        deviations = tuple(smoothness * voxels for voxels in patch)
        magnitudes = tuple(
            dice.rng.uniform(deviation / 8, deviation / 2) for deviation in deviations
        )
        return Elastic(_even_noise(dice, patch), deviations, magnitudes)

    def _shift(self, dice: Dice) -> Channels:
        limits = (0.0, self.additive_brightness_deviation)
        return dice.each(
            self.additive_brightness_probability,
            lambda mean_and_deviation: dice.rng.normal(*mean_and_deviation),
            limits,
            self.additive_brightness_channel_probability,
        )

    def _operators(self, dice: Dice, configuration: Configuration) -> tuple[Operator, ...]:
        classes = configuration.network.input_channels - dice.channels
        if classes < 1 or not dice.happens(self.cascade_operator_probability):
            return ()
        return tuple(
            Operator(
                int(c), OPERATIONS[dice.rng.integers(4)], dice.within(self.cascade_operator_radius)
            )
            for c in dice.rng.permutation(classes)
            if dice.happens(self.cascade_operator_label_probability)
        )

    def _removals(self, dice: Dice, configuration: Configuration) -> tuple[Removal, ...]:
        classes, size = (
            configuration.network.input_channels - dice.channels,
            self.cascade_removal_size,
        )
        if classes < 1 or size == 0 or not dice.happens(self.cascade_removal_probability):
            return ()
        removals = []
        for channel in range(classes):
            others = [c for c in range(classes) if c != channel]
            filled = others and dice.happens(self.cascade_removal_fill_probability)
            fill = int(dice.rng.choice(others)) if filled else None
            removals.append(Removal(channel, dice.rng.random(), size, fill))
        return tuple(removals)

    def mirrored_axes(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the axes of the patch that are mirrored, and that prediction may average over (contracts.Augmentation).

        Raises:
            UsageError: `mirror_axes` names an axis that the patch does not have.
        """
        axes = tuple(range(configuration.dimensions))
        chosen = axes if self.mirror_axes is None else self.mirror_axes
        if set(chosen) - set(axes) or len(set(chosen)) < len(chosen):
            raise UsageError(
                f"augmentation.mirror_axes is {list(chosen)}, but the patch has the axes {list(axes)}. "
                "Name some of these, each once, or null for all."
            )
        return chosen if self.mirror_probability else ()


def _even_noise(dice: Dice, patch: tuple[int, ...]) -> np.ndarray:
    """Return float32 (axes, *patch) from -1 to 1."""
    return dice.rng.random((len(patch), *patch), np.float32) * 2 - 1
